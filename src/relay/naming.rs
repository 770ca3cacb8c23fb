//! What a client is called toward the server, where that is another name than its own.
//!
//! ```text
//!   the client's settings: application_name = shop          what it set, and is shown
//!   toward the server:     application_name = shop@10.0.0.7 what pg_stat_activity and the server's log show
//! ```
//! The server is brought to the second as to any other setting, in the same write as the client's own message and only
//! if it has another. A transaction that begins with a text that speaks of the name runs under the client's own, so that
//! SHOW, `current_setting` and the like say what the client has set. What the server reports of the name is translated
//! back: a ROLLBACK, say, takes the session back to the name that the pooler gave it.

use std::sync::Arc;

use pooler_protocol::backend::TransactionStatus;
use pooler_protocol::naming::{Frame, SETTING, mentions_name};
use pooler_protocol::settings::Settings;

use super::requests::BatchShape;
use super::{ClientSide, Relay};
use crate::buffer::Splice;
use crate::server::Interners;

/// A text up to this length, in bytes, is looked at: those that ask for the name are short.
const TEXT_LEN_MAX: usize = 512;

/// See the module.
#[derive(Debug)]
pub struct Naming {
    frame: Frame,
    /// The client's settings that `outward` was made of.
    of: Arc<Settings>,
    outward: Arc<Settings>,
}

impl Naming {
    /// Of a client with these settings.
    #[must_use]
    pub fn new(frame: Frame, settings: &Arc<Settings>, interners: &Interners) -> Self {
        let mut naming = Self {
            frame,
            of: Arc::clone(settings),
            outward: Arc::clone(settings),
        };
        naming.renew(settings, interners);
        naming
    }

    fn renew(&mut self, settings: &Arc<Settings>, interners: &Interners) {
        let name = self.frame.fill(name_in(settings));
        self.of = Arc::clone(settings);
        self.outward = interners.settings(settings.with(SETTING, Some(&name)));
    }

    /// The name that the server was given.
    fn given(&self) -> &str {
        name_in(&self.outward)
    }

    /// The client's own name for which that was.
    fn own(&self) -> &str {
        name_in(&self.of)
    }
}

fn name_in(settings: &Settings) -> &str {
    settings.find(SETTING).unwrap_or_default()
}

impl ClientSide {
    /// What a server is to be set to for this client.
    #[inline]
    pub(super) fn outward(&mut self, interners: &Interners) -> &Arc<Settings> {
        let Some(naming) = &mut self.naming else {
            return &self.settings;
        };
        if !Arc::ptr_eq(&naming.of, &self.settings) {
            naming.renew(&self.settings, interners);
        }
        &naming.outward
    }
}

impl Relay<'_> {
    /// Brings a server that owes nothing to the client's settings.
    #[inline]
    pub(super) fn adopt_settings(&mut self, splice: &mut Splice<'_>) {
        // Within a transaction what was given last is what the server may go back to, and one that has failed takes
        // nothing.
        let ledger = &self.server.ledger;
        if self.client.naming.is_some() && ledger.status() != TransactionStatus::Idle {
            return;
        }
        let wanted = self.client.outward(self.interners);
        if !Arc::ptr_eq(&self.server.settings, wanted) {
            splice.put(|out| self.server.adopt_settings(wanted, out));
        }
    }

    /// A text that the client runs as the first of what it sends to a server that owes nothing: one that speaks of the
    /// name is to find the client's own.
    #[inline]
    pub(super) fn speak_of_name(
        &mut self,
        text: &[u8],
        shape: &BatchShape,
        splice: &mut Splice<'_>,
    ) {
        if self.client.naming.is_some() && shape.messages == 1 && shape.at_rest {
            self.give_own_name(text, splice);
        }
    }

    #[cold]
    fn give_own_name(&mut self, text: &[u8], splice: &mut Splice<'_>) {
        let failed = self.server.ledger.status() == TransactionStatus::Failed;
        if !failed && text.len() <= TEXT_LEN_MAX && mentions_name(text) {
            let settings = &self.client.settings;
            splice.put(|out| self.server.adopt_settings(settings, out));
        }
    }

    /// The server reports, because of something that the client did, that a setting is `value` now. What the client is
    /// to be told instead, if it is called by another name than its own.
    pub(super) fn note_reported(&mut self, name: &str, value: &str) -> Option<String> {
        let born_with = self.server.welcome.find(name) == Some(value);
        let value = (!born_with).then_some(value);
        let (client, server) = (&mut *self.client, &mut *self.server);
        let Some(naming) = &client.naming else {
            let changed = self.interners.settings(client.settings.with(name, value));
            server.settings = Arc::clone(&changed);
            client.settings = changed;
            return None;
        };
        server.settings = self.interners.settings(server.settings.with(name, value));
        let is_given = name.eq_ignore_ascii_case(SETTING) && value == Some(naming.given());
        if !is_given {
            client.settings = self.interners.settings(client.settings.with(name, value));
            return None;
        }
        let own = naming.own().to_owned();
        let kept = naming.of.find(SETTING);
        client.settings = self.interners.settings(client.settings.with(SETTING, kept));
        Some(own)
    }

    /// What the server says is set, as the client has set it.
    pub(super) fn own_settings(&self, found: &Settings) -> Option<Settings> {
        let naming = self.client.naming.as_ref()?;
        let is_given = found.find(SETTING) == Some(naming.given());
        is_given.then(|| found.with(SETTING, naming.of.find(SETTING)))
    }
}
