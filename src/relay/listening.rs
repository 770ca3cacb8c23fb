//! A client that does nothing in its session but listen is handed over to the connection that
//! listens for all of them (`server::listening`), and gives its server back.
//!
//! ```text
//!   Settled --the server listens, and holds nothing else--> Wanted      the session asks for a link
//!   Wanted  --Listening-------------------------> Confirmed             both listen now
//!   Confirmed --marker and UNLISTEN sent, at rest--> Parting
//!   Parting --the server is at rest, and the marker was heard through the link--> Settled, released
//! ```
//! A listener that gets a server for a transaction has it listen to the same channels first, so that
//! LISTEN and UNLISTEN in the transaction mean what they should and take effect, or do not, when it
//! ends; what the server listens to then is the truth. Its notifications on channels that are
//! listened to elsewhere go to nobody: they come from there. They are noted, though, when a further
//! channel is handed over: they say where between them its notifications belong (`merge`). Only
//! while something else keeps the client on its server may notifications of an old channel and of a
//! new one change places. What the server notified in the transaction itself PostgreSQL sends in
//! front of ReadyForQuery: so that is held back until they have come through the link.

use std::sync::Arc;
use std::task::Waker;

use pooler_protocol::backend::{TransactionStatus, read_notification, tag, write_ready_idle};
use pooler_protocol::frame::{HEADER_LEN, write_message};
use pooler_protocol::statement::Marks;

use super::{HeldBack, Leftovers, Relay};
use crate::buffer::Splice;
use crate::server::listening::{Channel, Event, Link, each};

/// Bytes for the client that may wait before more notifications do.
const UNSENT_MAX: usize = 64 * 1024;

/// Notifications that are put in order at the marker; beyond that order is given up, and what came
/// through the link is all that counts of the channels that were shared.
const ASIDE_MAX: usize = 65_536;

/// How far the handing over is; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Settled,
    Wanted,
    Confirmed,
    Parting,
    /// No connection that listens is to be had: it keeps its server.
    Refused,
}

/// What came of listening to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that changes anything.
    Nothing,
    /// Something for the client, or for its relay.
    Something,
    /// The connection that listens is lost, and with it what the client listened to.
    Lost,
}

/// What a client listens to.
#[derive(Debug, Default)]
pub struct Listening {
    link: Option<Link>,
    /// Heard through the link.
    channels: Vec<Channel>,
    /// Being handed over: heard through the link from the marker on.
    fresh: Vec<Channel>,
    /// The server's stream is at the marker: what is behind it comes through the link.
    is_cut: bool,
    /// What its server listens to, as it said last.
    on_server: Vec<Channel>,
    /// Its server listens to the same channels for this transaction.
    is_restored: bool,
    /// What the server notified since then, up to the marker; whether the link brings it, too.
    aside: Vec<(bool, Box<[u8]>)>,
    /// What came through the link before the marker.
    before: Vec<Arc<[u8]>>,
    /// A ReadyForQuery is held back until these were passed on.
    owed: Option<Vec<Box<[u8]>>>,
    stage: Stage,
}

impl Listening {
    /// Whether the session is to get a link.
    #[must_use]
    pub fn needs_link(&self) -> bool {
        self.stage == Stage::Wanted && self.link.is_none()
    }

    /// Whether the connection that listens for all listens for this client.
    #[must_use]
    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// Uses `link` from now on.
    pub fn use_link(&mut self, link: Link) {
        link.listen(self.fresh.clone());
        self.link = Some(link);
    }

    fn knows(&self, channel: &[u8]) -> bool {
        let all = self.channels.iter().chain(&self.fresh);
        has(all, channel)
    }

    /// Forgets the server.
    pub(super) fn part(&mut self) {
        self.on_server.clear();
        self.is_restored = false;
        self.aside.clear();
    }

    /// Whether it is about to give its server back: nothing that the client sends goes there meanwhile.
    #[must_use]
    pub(super) fn is_parting(&self) -> bool {
        self.stage == Stage::Parting
    }

    /// Its server is kept for another reason: what it notified is not held back.
    pub(super) fn stay(&mut self, out: &mut Vec<u8>) {
        self.is_restored = false;
        for (_, message) in std::mem::take(&mut self.aside) {
            if !self.knows_message(&message) {
                self.pass_on(&message, out);
            }
        }
    }

    fn knows_message(&self, message: &[u8]) -> bool {
        read_notification(&message[HEADER_LEN..]).is_some_and(|(c, _)| self.knows(c))
    }

    fn pass_on(&mut self, message: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(message);
        if let Some(owed) = &mut self.owed
            && let Some(at) = owed.iter().position(|o| **o == *message)
        {
            owed.remove(at);
        }
        self.pay_ready(out);
    }

    /// Passes on the ReadyForQuery that is held back, if nothing is owed in front of it.
    fn pay_ready(&mut self, out: &mut Vec<u8>) {
        if self.owed.as_ref().is_some_and(Vec::is_empty) {
            self.owed = None;
            write_ready_idle(out);
        }
    }

    /// Whether a ReadyForQuery is held back: the client has nothing to say before that.
    #[must_use]
    pub fn holds_ready(&self) -> bool {
        self.owed.is_some()
    }

    /// At the marker: what came through the link and what the server notified in one order. Both
    /// have the same notifications of the channels that were shared before, up to the marker; one of
    /// them may have begun to note them earlier.
    fn merge(&mut self, out: &mut Vec<u8>) {
        if self.aside.len() >= ASIDE_MAX {
            self.aside.retain(|(shared, _)| !shared);
        }
        let shared = self.aside.iter().filter(|(shared, _)| *shared).count();
        let earlier = self.before.len().saturating_sub(shared);
        let mut heard = shared.saturating_sub(self.before.len());
        for message in std::mem::take(&mut self.before).iter().take(earlier) {
            self.pass_on(message, out);
        }
        for (shared, message) in std::mem::take(&mut self.aside) {
            if shared && heard > 0 {
                heard -= 1;
            } else {
                self.pass_on(&message, out);
            }
        }
    }

    /// What is heard now; appends to `out` what is for the client, if that is `at_rest` between
    /// transactions and has fewer than 64 kB unsent.
    #[must_use]
    pub fn hear(
        &mut self,
        waker: &Waker,
        at_rest: bool,
        unsent: usize,
        out: &mut Vec<u8>,
    ) -> Heard {
        if self.stage == Stage::Wanted {
            return self.hear_whether_confirmed(waker);
        }
        // What the server still has to say about the channels that are handed over goes first.
        let open = match self.stage {
            Stage::Settled => at_rest,
            Stage::Parting => self.is_cut,
            Stage::Wanted | Stage::Confirmed | Stage::Refused => false,
        };
        let mut heard = Heard::Nothing;
        while open
            && unsent + out.len() < UNSENT_MAX
            && let Some(link) = &self.link
        {
            match link.hear(waker) {
                None => break,
                Some(Event::Listening) => {}
                Some(Event::Marker(_)) => {
                    self.merge(out);
                    self.channels.append(&mut self.fresh);
                    self.is_cut = false;
                    return Heard::Something;
                }
                Some(Event::Notification(channel, message)) => {
                    if !self.channels.contains(&channel) {
                        continue;
                    }
                    if self.is_cut {
                        self.before.push(message);
                    } else {
                        self.pass_on(&message, out);
                        heard = Heard::Something;
                    }
                }
                Some(Event::Lost) => return Heard::Lost,
            }
        }
        heard
    }

    fn hear_whether_confirmed(&mut self, waker: &Waker) -> Heard {
        match self
            .link
            .as_ref()
            .and_then(|link| link.hear_whether_confirmed(waker))
        {
            None => Heard::Nothing,
            Some(true) => {
                self.stage = Stage::Confirmed;
                Heard::Something
            }
            Some(false) if self.channels.is_empty() => {
                // Its server still listens for it.
                self.link = None;
                self.fresh.clear();
                self.stage = Stage::Refused;
                Heard::Nothing
            }
            Some(false) => Heard::Lost,
        }
    }
}

fn has<'a>(channels: impl IntoIterator<Item = &'a Channel>, channel: &[u8]) -> bool {
    channels.into_iter().any(|c| **c == *channel)
}

impl Relay<'_> {
    /// What the server listens to, as its answer says.
    pub(super) fn note_channels(&mut self, channels: Vec<Channel>) {
        let possessions = &mut self.client.possessions;
        if channels.is_empty() && possessions.listening.is_none() {
            return;
        }
        let listening = possessions.listening.get_or_insert_default();
        let is_gone = |c: &Channel| !channels.contains(c);
        let mut gone: Vec<Channel> = listening.channels.extract_if(.., |c| is_gone(c)).collect();
        gone.extend(listening.fresh.extract_if(.., |c| is_gone(c)));
        if !gone.is_empty() && listening.owed.is_some() {
            // They will not come.
            listening.owed = Some(Vec::new());
            self.client.outbox.append(|out| listening.pay_ready(out));
        }
        if let Some(link) = &listening.link {
            link.unlisten(gone);
        }
        listening.on_server = channels;
        if listening.on_server.is_empty() {
            possessions.listening = None;
        } else if possessions.held != Marks::LISTEN {
            self.client.outbox.append(|out| listening.stay(out));
        }
    }

    /// Holds the ReadyForQuery back that ends a transaction in which something was notified. Returns
    /// whether that is so.
    pub(super) fn hold_ready(&mut self) -> bool {
        let ends = self.server.ledger.status() == TransactionStatus::Idle;
        let last = ends && !self.server.ledger.owes_client();
        let Some(listening) = self.client.possessions.listening.as_mut().filter(|_| last) else {
            return false;
        };
        if listening.aside.is_empty() || listening.link.is_none() {
            return false;
        }
        let messages = listening.aside.iter().map(|(_, message)| message.clone());
        listening.owed = Some(messages.collect());
        true
    }

    /// In front of the client's first message of a transaction: the server is to listen to what the
    /// client listens to.
    #[inline]
    pub(super) fn restore_listening(&mut self, splice: &mut Splice<'_>) {
        if self.client.possessions.listening.is_some() {
            self.restore(splice);
        }
    }

    #[cold]
    fn restore(&mut self, splice: &mut Splice<'_>) {
        let possessions = &mut self.client.possessions;
        let Some(listening) = &mut possessions.listening else {
            return;
        };
        let due = listening.link.is_some()
            && listening.stage == Stage::Settled
            && !listening.is_restored
            && !possessions.held.has(Marks::LISTEN)
            && self.server.ledger.status() == TransactionStatus::Idle;
        if !due {
            return;
        }
        listening.is_restored = true;
        let sql = each("LISTEN", &listening.channels);
        possessions.marks |= Marks::LISTEN;
        splice.put(|out| self.server.put_own_query(&sql, out));
        self.server.suspect = true;
    }

    /// Whether a notification of the server is for the client.
    pub(super) fn is_for_client(&mut self, body: &[u8]) -> bool {
        let Some(listening) = &mut self.client.possessions.listening else {
            return true;
        };
        let (Some(link), Some((channel, payload))) = (&listening.link, read_notification(body))
        else {
            return true;
        };
        if channel == link.private().as_bytes() {
            if listening.stage == Stage::Parting && payload == link.marker().to_string().as_bytes()
            {
                listening.is_cut = true;
            }
            return false;
        }
        let shared = has(&listening.channels, channel);
        let ordered = listening.is_restored || listening.stage != Stage::Settled;
        let ordered = ordered && !listening.is_cut && listening.aside.len() < ASIDE_MAX;
        if ordered && !listening.channels.is_empty() {
            let mut message = Vec::with_capacity(HEADER_LEN + body.len());
            write_message(&mut message, tag::NOTIFICATION_RESPONSE, |out| {
                out.extend_from_slice(body);
            });
            listening.aside.push((shared, message.into()));
            return false;
        }
        !(shared || listening.is_cut && has(&listening.fresh, channel))
    }

    /// Goes on with the handing over, if the server is at rest. Returns whether anything changed.
    #[inline]
    pub(super) fn hand_over_listening(&mut self) -> bool {
        self.client.possessions.listening.is_some() && self.hand_over()
    }

    #[cold]
    fn hand_over(&mut self) -> bool {
        let possessions = &mut self.client.possessions;
        let rests = possessions.held == Marks::LISTEN
            && !possessions.is_due()
            && !possessions.is_asked()
            && self.rules.leftovers == Leftovers::Keep
            && self.client.pass == 0
            && self.server.reusable().is_some();
        // Elsewhere it is another session, whose encoding is the pool's.
        let ascii = |c: &Channel| c.is_ascii();
        let plain = self.client.settings.find("client_encoding").is_none();
        let Some(listening) = possessions.listening.as_mut().filter(|_| rests) else {
            return false;
        };
        match listening.stage {
            Stage::Settled | Stage::Confirmed => {
                let known = |c: &&Channel| !listening.knows(c);
                let new: Vec<Channel> = listening.on_server.iter().filter(known).cloned().collect();
                if new.is_empty() {
                    return self.part_with_server();
                }
                if !plain || !new.iter().all(ascii) {
                    self.client.outbox.append(|out| listening.stay(out));
                    return false;
                }
                listening.stage = Stage::Wanted;
                listening.fresh.extend(new);
                if let Some(link) = &listening.link {
                    link.listen(listening.fresh.clone());
                }
                false
            }
            // The marker is awaited.
            Stage::Parting if !listening.fresh.is_empty() => false,
            Stage::Parting => {
                listening.stage = Stage::Settled;
                listening.on_server.clear();
                possessions.held = Marks::NONE;
                self.server.suspect = false;
                true
            }
            Stage::Wanted | Stage::Refused => false,
        }
    }

    /// The marker first, in a transaction of its own: it comes back before the server listens no more.
    fn part_with_server(&mut self) -> bool {
        let Some(listening) = &mut self.client.possessions.listening else {
            return false;
        };
        let marks = listening.stage == Stage::Confirmed;
        listening.stage = Stage::Parting;
        let Some(link) = &listening.link else {
            return false;
        };
        let private: Channel = link.private().as_bytes().into();
        let mark = marks.then(|| {
            let listen = each("LISTEN", [&private]);
            format!("{listen}NOTIFY {}, '{}'", link.private(), link.marker())
        });
        let mut queries = Vec::new();
        for sql in mark.into_iter().chain(["UNLISTEN *".to_owned()]) {
            self.server.put_own_query(&sql, &mut queries);
        }
        self.server.outbox.append(|out| out.append(&mut queries));
        self.client.held_back = HeldBack::UntilAnswered;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out for what came through the link and what the server notified: small letters are
    /// of shared channels, capital ones of the channel that is handed over.
    fn merged(before: &str, aside: &str) -> String {
        let note = |b: u8| (b.is_ascii_lowercase(), Box::from([b]));
        let mut listening = Listening {
            before: before.bytes().map(|b| Arc::from([b])).collect(),
            aside: aside.bytes().map(note).collect(),
            ..Listening::default()
        };
        let mut out = Vec::new();
        listening.merge(&mut out);
        String::from_utf8(out).expect("letters")
    }

    #[test]
    fn notifications_of_both_streams_come_once_and_in_one_order() {
        assert_eq!(merged("abc", "aXbcY"), "aXbcY");
        // The link was noted earlier, or later, than the server.
        assert_eq!(merged("abcd", "cXd"), "abcXd");
        assert_eq!(merged("d", "aXcYdZ"), "XYdZ");
        assert_eq!(merged("", "X"), "X");
        assert_eq!(merged("ab", ""), "ab");
    }

    #[test]
    fn t49_beyond_the_bound_nothing_is_lost_or_doubled() {
        let many = "n".repeat(ASIDE_MAX - 1);
        assert_eq!(merged("abc", &format!("{many}X")), "abcX");
    }
}
