//! A session that listens: its link to the connection that listens for it, and what comes through.

use std::task::Context;

use super::{Session, State};
use crate::error::Refusal;
use crate::relay::Heard;

impl Session {
    /// Before the session sleeps: passes on what was heard, if it is between transactions, and asks
    /// for a link if it is to have one. Returns whether there is more to do before it sleeps.
    #[cold]
    pub(super) fn tend_listening(&mut self, cx: &mut Context<'_>) -> bool {
        let at_rest = match &self.state {
            State::Idle => true,
            State::Active(server) => self.client.pass == 0 && server.reusable().is_some(),
            State::Waiting(_) => false,
            State::Closing => return false,
        };
        let client = &mut self.client;
        let Some(listening) = client.possessions.listening.as_mut() else {
            return false;
        };
        if listening.needs_link() {
            listening.use_link(self.home.link());
        }
        let mut heard = Vec::new();
        let unsent = client.outbox.waiting_len();
        match listening.hear(cx.waker(), at_rest, unsent, &mut heard) {
            Heard::Nothing => false,
            Heard::Something => {
                client.outbox.append(|out| out.extend_from_slice(&heard));
                true
            }
            Heard::Lost => {
                self.end_with(&Refusal::listener_lost());
                true
            }
        }
    }
}
