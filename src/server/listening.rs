//! One server connection that listens for all clients of a pool, so that a client which only listens
//! holds no server of its own.
//!
//! ```text
//!  client's link --listen, unlisten, gone--> [ channels -> members ] --LISTEN, UNLISTEN--> server
//!  client's mailbox <--Listening, notifications in their order, Lost-- [ channels -> members ] <-- server
//! ```
//! PostgreSQL puts the notifications of a database in one order, the same for every session that
//! listens. Both this connection and the client's own server listen to a channel while a client is
//! handed over; a marker, notified on a channel that only the pooler knows, is at the same place in
//! both of their streams: what is before it comes from the client's server, what is behind it from
//! here. So nothing is lost and nothing comes twice.
//!
//! If the connection is lost its clients are told, as PostgreSQL tells them: they are closed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use pooler_protocol::backend::{read_notification, tag};
use pooler_protocol::frame::write_message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::Server;
use crate::error::ServerFault;

/// Bytes of notifications that a client may leave unread before it is closed.
const UNREAD_MAX: usize = 16 * 1024 * 1024;

/// The name of a channel.
pub type Channel = Box<[u8]>;

/// What a client hears.
#[derive(Debug)]
pub enum Event {
    /// The channels asked for are listened to.
    Listening,
    /// The marker of this number.
    Marker(u64),
    /// A notification: its channel, and the whole message.
    Notification(Channel, Arc<[u8]>),
    /// No server listens for it: none could be opened, or it is gone.
    Lost,
}

#[derive(Debug, Default)]
struct Unread {
    events: VecDeque<Event>,
    bytes: usize,
    waker: Option<Waker>,
}

/// Where a client hears it, on whatever worker it lives.
#[derive(Debug, Default)]
struct Mailbox(Mutex<Unread>);

impl Mailbox {
    fn put(&self, event: Event) {
        let mut unread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Notification(_, message) = &event {
            unread.bytes += message.len();
        }
        if unread.bytes > UNREAD_MAX {
            unread.events.clear();
            unread.events.push_back(Event::Lost);
        } else {
            unread.events.push_back(event);
        }
        let waker = unread.waker.take();
        drop(unread);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What a client asks for.
#[derive(Debug)]
enum Wish {
    Join(Arc<Mailbox>),
    Listen(Vec<Channel>),
    Unlisten(Vec<Channel>),
    Leave,
}

/// What reaches the connection: whose wish, and which.
#[derive(Debug)]
pub struct Command(u64, Wish);

/// The way to a connection that listens; clones of the sender are its clients.
#[derive(Debug, Clone)]
pub struct Exchange {
    commands: UnboundedSender<Command>,
    /// The channel of the markers.
    private: Arc<str>,
}

impl Exchange {
    /// With a connection that hears at the other end of `commands`.
    #[must_use]
    pub fn new(commands: UnboundedSender<Command>) -> Self {
        let private = format!("pooler_{:032x}", rand::random::<u128>()).into();
        Self { commands, private }
    }

    /// Whether nobody has a link to it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.commands.strong_count() <= 1
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.commands.is_closed()
    }

    /// The channel of the markers.
    #[must_use]
    pub fn private(&self) -> Arc<str> {
        Arc::clone(&self.private)
    }

    /// A client's link.
    #[must_use]
    pub fn link(&self) -> Link {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let link = Link {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            exchange: self.clone(),
            mailbox: Arc::default(),
        };
        link.wish(Wish::Join(Arc::clone(&link.mailbox)));
        link
    }
}

/// A client's link to the connection that listens for it; what it listened to ends with it.
#[derive(Debug)]
pub struct Link {
    id: u64,
    exchange: Exchange,
    mailbox: Arc<Mailbox>,
}

impl Link {
    fn wish(&self, wish: Wish) {
        if self.exchange.commands.send(Command(self.id, wish)).is_err() {
            self.mailbox.put(Event::Lost);
        }
    }

    /// Asks for channels; [`Event::Listening`] says that they are listened to.
    pub fn listen(&self, channels: Vec<Channel>) {
        self.wish(Wish::Listen(channels));
    }

    /// Gives channels up.
    pub fn unlisten(&self, channels: Vec<Channel>) {
        if !channels.is_empty() {
            self.wish(Wish::Unlisten(channels));
        }
    }

    /// The number of its markers.
    #[must_use]
    pub fn marker(&self) -> u64 {
        self.id
    }

    /// The channel of the markers.
    #[must_use]
    pub fn private(&self) -> &str {
        &self.exchange.private
    }

    /// The next thing heard; without one, `waker` is woken when there is.
    #[must_use]
    pub fn hear(&self, waker: &Waker) -> Option<Event> {
        let unread = self.mailbox.0.lock();
        let mut unread = unread.unwrap_or_else(PoisonError::into_inner);
        let event = unread.events.pop_front();
        match &event {
            None => unread.waker = Some(waker.clone()),
            Some(Event::Notification(_, message)) => unread.bytes -= message.len(),
            Some(_) => {}
        }
        event
    }

    /// Whether the channels that were asked for are listened to: false if they never will be, `None`
    /// if that is not known yet; then `waker` is woken when it is. What else was heard stays.
    #[must_use]
    pub fn hear_whether_confirmed(&self, waker: &Waker) -> Option<bool> {
        let unread = self.mailbox.0.lock();
        let mut unread = unread.unwrap_or_else(PoisonError::into_inner);
        let answers = |e: &Event| matches!(e, Event::Listening | Event::Lost);
        let Some(at) = unread.events.iter().position(answers) else {
            unread.waker = Some(waker.clone());
            return None;
        };
        if matches!(unread.events[at], Event::Lost) {
            return Some(false);
        }
        unread.events.remove(at);
        Some(true)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.wish(Wish::Leave);
    }
}

/// A name as an identifier in SQL.
fn put_identifier(sql: &mut String, channel: &[u8]) {
    sql.push('"');
    sql.push_str(&String::from_utf8_lossy(channel).replace('"', "\"\""));
    sql.push('"');
}

/// `LISTEN` or `UNLISTEN` (`word`) for each of `channels`.
#[must_use]
pub fn each<'a>(word: &str, channels: impl IntoIterator<Item = &'a Channel>) -> String {
    let mut sql = String::new();
    for channel in channels {
        sql.push_str(word);
        sql.push(' ');
        put_identifier(&mut sql, channel);
        sql.push(';');
    }
    sql
}

#[derive(Debug, Default)]
struct Member {
    mailbox: Arc<Mailbox>,
    channels: HashSet<Channel>,
}

/// Who listens to what.
#[derive(Debug, Default)]
struct Members {
    by_id: HashMap<u64, Member>,
    by_channel: HashMap<Channel, Vec<u64>>,
}

impl Members {
    /// Notes that a member listens; the channels that nobody listened to before.
    fn listen(&mut self, id: u64, channels: Vec<Channel>) -> Vec<Channel> {
        let Some(member) = self.by_id.get_mut(&id) else {
            return Vec::new();
        };
        let mut new = Vec::new();
        for channel in channels {
            if member.channels.insert(channel.clone()) {
                let ids = self.by_channel.entry(channel.clone()).or_default();
                if ids.is_empty() {
                    new.push(channel);
                }
                ids.push(id);
            }
        }
        new
    }

    /// Notes that a member listens no more; the channels that nobody listens to now.
    fn unlisten(&mut self, id: u64, channels: Vec<Channel>) -> Vec<Channel> {
        let mut unused = Vec::new();
        for channel in channels {
            let member = self.by_id.get_mut(&id);
            if !member.is_some_and(|m| m.channels.remove(&channel)) {
                continue;
            }
            if let Some(ids) = self.by_channel.get_mut(&channel) {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    self.by_channel.remove(&channel);
                    unused.push(channel);
                }
            }
        }
        unused
    }

    /// Passes on a message of the server.
    fn hand_on(&self, private: &str, tag: u8, body: &[u8]) {
        if tag != tag::NOTIFICATION_RESPONSE {
            return;
        }
        let Some((channel, payload)) = read_notification(body) else {
            return;
        };
        if channel == private.as_bytes() {
            let number = std::str::from_utf8(payload)
                .ok()
                .and_then(|n| n.parse().ok());
            if let Some((number, member)) = number.and_then(|n| Some((n, self.by_id.get(&n)?))) {
                member.mailbox.put(Event::Marker(number));
            }
            return;
        }
        let Some(ids) = self.by_channel.get(channel) else {
            return;
        };
        let mut message = Vec::with_capacity(body.len() + 5);
        write_message(&mut message, tag, |out| out.extend_from_slice(body));
        let message: Arc<[u8]> = message.into();
        for member in ids.iter().filter_map(|id| self.by_id.get(id)) {
            let event = Event::Notification(channel.into(), Arc::clone(&message));
            member.mailbox.put(event);
        }
    }
}

/// Everybody is told when it ends, however it does.
impl Drop for Members {
    fn drop(&mut self) {
        for member in self.by_id.values() {
            member.mailbox.put(Event::Lost);
        }
    }
}

/// Whoever still waits for an answer when no server could be opened is told so.
pub fn refuse(mut commands: UnboundedReceiver<Command>) {
    commands.close();
    while let Ok(Command(_, wish)) = commands.try_recv() {
        if let Wish::Join(mailbox) = wish {
            mailbox.put(Event::Lost);
        }
    }
}

/// Listens by `server` until nobody has an [`Exchange`] to it.
///
/// # Errors
/// [`ServerFault`]: the connection is lost, and its clients are told.
pub async fn serve(
    server: &mut Server,
    private: &str,
    commands: &mut UnboundedReceiver<Command>,
) -> Result<(), ServerFault> {
    let mut members = Members::default();
    let own: Channel = private.as_bytes().into();
    server.ask(&each("LISTEN", [&own]), |_, _| ()).await?;
    loop {
        // Either can be dropped midway: a command not yet taken and bytes not yet read stay.
        let command = tokio::select! {
            command = commands.recv() => command,
            arrived = server.arrived(|tag, body| members.hand_on(private, tag, body)) => {
                arrived?;
                continue;
            }
        };
        let Some(Command(id, wish)) = command else {
            return Ok(());
        };
        let mut listening = None;
        let sql = match wish {
            Wish::Join(mailbox) => {
                let channels = HashSet::new();
                members.by_id.insert(id, Member { mailbox, channels });
                continue;
            }
            Wish::Listen(channels) => {
                listening = Some(id);
                each("LISTEN", &members.listen(id, channels))
            }
            Wish::Unlisten(channels) => each("UNLISTEN", &members.unlisten(id, channels)),
            Wish::Leave => {
                let gone = members.by_id.get_mut(&id);
                let channels = gone.map(|m| m.channels.iter().cloned().collect());
                let unused = members.unlisten(id, channels.unwrap_or_default());
                members.by_id.remove(&id);
                each("UNLISTEN", &unused)
            }
        };
        if !sql.is_empty() {
            let see = |tag, body: &[u8]| members.hand_on(private, tag, body);
            server.ask(&sql, see).await?;
        }
        if let Some(member) = listening.and_then(|id| members.by_id.get(&id)) {
            member.mailbox.put(Event::Listening);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> Channel {
        name.as_bytes().into()
    }

    fn notification(channel: &str, payload: &str) -> Vec<u8> {
        [
            b"\0\0\0\x07",
            channel.as_bytes(),
            b"\0",
            payload.as_bytes(),
            b"\0",
        ]
        .concat()
    }

    #[test]
    fn a_channel_is_listened_to_once_and_as_long_as_somebody_does() {
        let mut members = Members::default();
        for id in [1, 2] {
            members.by_id.insert(id, Member::default());
        }
        assert_eq!(members.listen(1, vec![channel("a")]), [channel("a")]);
        assert!(members.listen(2, vec![channel("a")]).is_empty());
        assert!(members.listen(2, vec![channel("a")]).is_empty());
        assert!(members.unlisten(1, vec![channel("a")]).is_empty());
        assert!(members.unlisten(1, vec![channel("a")]).is_empty());
        assert_eq!(members.unlisten(2, vec![channel("a")]), [channel("a")]);
    }

    #[test]
    fn who_listens_hears_in_order_and_markers_only_their_own() {
        let mut members = Members::default();
        for id in [1, 2] {
            members.by_id.insert(id, Member::default());
        }
        let _new = members.listen(1, vec![channel("a")]);
        for (c, p) in [
            ("a", "x"),
            ("private", "2"),
            ("b", "y"),
            ("private", "1"),
            ("a", "z"),
        ] {
            members.hand_on("private", tag::NOTIFICATION_RESPONSE, &notification(c, p));
        }
        let heard = |id: u64| {
            let unread = members.by_id[&id].mailbox.0.lock().expect("no panic");
            let name = |e: &Event| match e {
                Event::Marker(n) => format!("marker {n}"),
                Event::Notification(_, m) => String::from_utf8_lossy(&m[9..]).replace('\0', " "),
                other => format!("{other:?}"),
            };
            unread.events.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(heard(1), ["a x ", "marker 1", "a z "]);
        assert_eq!(heard(2), ["marker 2"]);
    }

    #[test]
    fn t49_who_never_reads_is_closed() {
        let mailbox = Mailbox::default();
        let message: Arc<[u8]> = vec![0; 8000].into();
        for _ in 0..UNREAD_MAX / 8000 + 2 {
            mailbox.put(Event::Notification(channel("a"), Arc::clone(&message)));
        }
        let unread = mailbox.0.lock().expect("no panic");
        assert!(matches!(unread.events.front(), Some(Event::Lost)));
        assert!(unread.events.len() < 10);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(
            each("LISTEN", &[channel("a"), channel("B \"c\"")]),
            "LISTEN \"a\";LISTEN \"B \"\"c\"\"\";"
        );
    }
}
