//! What a session tells the log: slow statements, and that its client has left.

use std::borrow::Cow;
use std::time::Instant;

use super::{Session, State};
use crate::log::AS_OFTEN_AS_IT_HAPPENS;
use crate::observe::{Attention, Origin, log_slow};
use crate::relay::Ended;

impl Session {
    pub(super) fn look_up_attention(&mut self) {
        let current = self.hub.registry.current();
        self.rules.attention = Attention::of(&current.config.log);
    }

    fn user(&self) -> &str {
        let shown = self.holdings.user.as_deref();
        shown.unwrap_or(&self.home.shared().key.user)
    }

    /// Logs what was slow.
    #[cold]
    pub(super) fn log_slow(&mut self) {
        let State::Active(server) = &mut self.state else {
            return;
        };
        let slow = server.watch.take_slow();
        let State::Active(server) = &self.state else {
            return;
        };
        let name = self.application_name(Some(server));
        let origin = Origin {
            user: self.user(),
            database: &self.home.shared().key.database,
            peer: self.client.stream.peer(),
            application_name: &name,
            settings: &self.client.settings,
            server: &server.identity.host,
        };
        let current = self.hub.registry.current();
        for statement in &slow {
            log_slow(statement, &origin, &current.config.log);
        }
    }

    /// Logs that the client is here.
    #[cold]
    pub(super) fn log_login(&self) {
        tracing::info!(
            target: AS_OFTEN_AS_IT_HAPPENS,
            user = self.user(),
            database = self.home.shared().key.database,
            peer = %self.client.stream.peer(),
            application_name = self.application_name(None),
            "login"
        );
    }

    /// Logs that the client has left, and why.
    #[cold]
    pub(super) fn log_logout(&self) {
        let reason: Cow<'_, str> = match &self.ended_by {
            Some(why) => Cow::Borrowed(why),
            None if self.client.ended == Ended::Terminate => "the client said so".into(),
            None => "the client closed its connection".into(),
        };
        tracing::info!(
            target: AS_OFTEN_AS_IT_HAPPENS,
            user = self.user(),
            database = self.home.shared().key.database,
            peer = %self.client.stream.peer(),
            application_name = self.application_name(None),
            seconds = (Instant::now() - self.holdings.born).as_secs_f64(),
            reason = %reason,
            "logout"
        );
    }
}
