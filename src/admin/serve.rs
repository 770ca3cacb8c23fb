//! A console session, from its login on: reads messages, runs commands one after the other, answers.
//!
//! It is not made for speed, only bounded: in the length of a message, in statements, in sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pooler_protocol::backend::{
    tag as answer, write_backend_key_data, write_parameter_status, write_ready_idle,
};
use pooler_protocol::frame::{HEADER_LEN, Header, write_message};
use pooler_protocol::frontend::{BindView, ParseView, Target, tag};

use super::Desk;
use super::command::Rank;
use super::portal::{Formats, Request, malformed, write_heads};
use super::visits::Visit;
use crate::error::Refusal;
use crate::net::Stream;
use crate::timer;

/// The longest message.
const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// Statements and portals of a session, each.
const NAMES_MAX: usize = 200;

/// How long a client may take to take in an answer.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// What every server says of itself, and drivers rely on.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    /// It is said at login.
    reported: bool,
}

pub(super) static SETTINGS: &[Setting] = &[
    reported("server_version", "1.25.0/pooler"),
    reported("server_encoding", "UTF8"),
    reported("client_encoding", "UTF8"),
    reported("DateStyle", "ISO"),
    reported("TimeZone", "GMT"),
    reported("integer_datetimes", "on"),
    reported("standard_conforming_strings", "on"),
    reported("is_superuser", "on"),
    reported("in_hot_standby", "off"),
    reported("default_transaction_read_only", "off"),
    silent("application_name", ""),
    silent("default_transaction_isolation", "read committed"),
    silent("transaction_isolation", "read committed"),
    silent("transaction_read_only", "off"),
    silent("extra_float_digits", "2"),
    silent("search_path", ""),
];

const fn reported(name: &'static str, value: &'static str) -> Setting {
    Setting {
        name,
        value,
        reported: true,
    }
}

const fn silent(name: &'static str, value: &'static str) -> Setting {
    Setting {
        name,
        value,
        reported: false,
    }
}

/// A client of the console that has proved who it is.
#[derive(Debug)]
pub struct Visitor {
    /// The socket.
    pub stream: Stream,
    /// Received behind the login.
    pub received: Vec<u8>,
    /// To be sent in front of what comes next.
    pub out: Vec<u8>,
    /// Who it is.
    pub user: String,
    /// What it calls itself; empty if it does not.
    pub application_name: String,
}

/// Serves it to the end.
pub async fn serve(desk: Arc<Desk>, mut visitor: Visitor) {
    let refusal = match desk.visit(&visitor) {
        _ if Rank::of(&desk, &visitor.user) == Rank::Stranger => {
            Refusal::no_operator(&visitor.user)
        }
        None => Refusal::too_many_clients("console sessions", super::VISITORS_MAX),
        Some(visit) => {
            let mut session = Session::new(&desk, visitor, visit);
            session.greet();
            session.converse().await;
            return;
        }
    };
    tracing::info!("console refused: {:?}", refusal.message);
    refusal.write(&mut visitor.out);
    let sent = visitor.stream.write_all(&visitor.out);
    let _sent = timer::timeout(WRITE_MAX, sent).await;
}

/// The connection is of no use any more.
struct Gone;

struct Session<'a> {
    desk: &'a Desk,
    stream: Stream,
    user: String,
    visit: Visit,
    input: Vec<u8>,
    out: Vec<u8>,
    statements: HashMap<Vec<u8>, Request>,
    portals: HashMap<Vec<u8>, (Request, Formats)>,
    /// After an error in the extended protocol: everything up to Sync is dropped.
    discarding: bool,
}

impl<'a> Session<'a> {
    fn new(desk: &'a Desk, visitor: Visitor, visit: Visit) -> Self {
        Self {
            desk,
            stream: visitor.stream,
            user: visitor.user,
            visit,
            input: visitor.received,
            out: visitor.out,
            statements: HashMap::new(),
            portals: HashMap::new(),
            discarding: false,
        }
    }

    fn greet(&mut self) {
        for setting in SETTINGS.iter().filter(|s| s.reported) {
            write_parameter_status(&mut self.out, setting.name, setting.value);
        }
        write_backend_key_data(&mut self.out, self.visit.process_id, &self.visit.key);
        write_ready_idle(&mut self.out);
    }

    /// Until one side has had enough, or another operator has.
    async fn converse(&mut self) {
        let end = self.visit.end();
        let steps = async { while let Ok(true) = self.step().await {} };
        tokio::select! {
            () = steps => {}
            // In the middle of an answer that the client does not take in, it gets no error.
            () = end.notified() => Refusal::killed().write(&mut self.out),
        }
        // The last words of a session that ends by an error.
        let _sent = self.flush().await;
    }

    /// One message. False at the end of the session.
    async fn step(&mut self) -> Result<bool, Gone> {
        let header = match Header::read(&self.input) {
            Ok(Some(header)) if header.len <= MESSAGE_LEN_MAX => header,
            Ok(None) => {
                self.read().await?;
                return Ok(true);
            }
            _ => {
                Refusal::client_protocol("a message that is too long for the console")
                    .write(&mut self.out);
                return Ok(false);
            }
        };
        if self.input.len() < header.len {
            self.read().await?;
            return Ok(true);
        }
        let rest = self.input.split_off(header.len);
        let message = std::mem::replace(&mut self.input, rest);
        if header.tag == tag::TERMINATE {
            return Ok(false);
        }
        if self.discarding && header.tag != tag::SYNC {
            return Ok(true);
        }
        match self.obey(header.tag, &message[HEADER_LEN..]).await {
            Ok(()) => {}
            Err(Trouble::Gone) => return Err(Gone),
            Err(Trouble::Refused(refusal)) => {
                refusal.write(&mut self.out);
                if refusal.fatal {
                    return Ok(false);
                }
                self.discarding = header.tag != tag::QUERY;
            }
        }
        if header.tag == tag::QUERY {
            write_ready_idle(&mut self.out);
        }
        Ok(true)
    }

    /// Takes more in; what is due goes out first.
    async fn read(&mut self) -> Result<(), Gone> {
        self.flush().await?;
        take_in(&mut self.stream, &mut self.input).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        let out = std::mem::take(&mut self.out);
        let sent = timer::timeout(WRITE_MAX, self.stream.write_all(&out)).await;
        sent.map_err(|_elapsed| Gone)?.map_err(|_| Gone)
    }

    async fn obey(&mut self, tag: u8, body: &[u8]) -> Result<(), Trouble> {
        match tag {
            tag::QUERY => {
                let request = self.request(body.strip_suffix(b"\0").unwrap_or(body))?;
                self.simple(&request).await
            }
            tag::PARSE => self.parse(body),
            tag::BIND => self.bind(body),
            tag::DESCRIBE => self.describe(body),
            tag::EXECUTE => {
                let name = body.split(|&b| b == 0).next().unwrap_or_default();
                let portal = self.portals.get(name).cloned();
                let (request, formats) = portal.ok_or_else(no_portal)?;
                self.execute(&request, &formats).await
            }
            tag::CLOSE => {
                match Target::read(body).ok_or_else(|| malformed("a malformed Close"))? {
                    Target::Statement(name) => drop(self.statements.remove(name)),
                    Target::Portal(name) => drop(self.portals.remove(name)),
                }
                self.say(answer::CLOSE_COMPLETE);
                Ok(())
            }
            tag::SYNC => {
                self.discarding = false;
                self.portals.clear();
                write_ready_idle(&mut self.out);
                Ok(())
            }
            tag::FLUSH => Ok(self.flush().await?),
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => Ok(()),
            other => Err(Refusal::client_protocol(format_args!(
                "invalid frontend message type {other}"
            ))
            .into()),
        }
    }

    fn say(&mut self, tag: u8) {
        write_message(&mut self.out, tag, |_| ());
    }

    /// As configured now: a reload may have made it another.
    fn rank(&self) -> Rank {
        Rank::of(self.desk, &self.user)
    }

    fn request(&self, text: &[u8]) -> Result<Request, Refusal> {
        let text = std::str::from_utf8(text)
            .map_err(|e| Refusal::error("22021", format!("invalid UTF-8: {e}")))?;
        Request::read(text, self.rank())
    }

    async fn simple(&mut self, request: &Request) -> Result<(), Trouble> {
        if let Some(heads) = request.heads() {
            write_heads(&heads, &Formats::default(), &mut self.out);
        }
        self.execute(request, &Formats::default()).await
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let view = ParseView::read(body).ok_or_else(|| malformed("a malformed Parse"))?;
        let request = self.request(view.query())?;
        if !view.name.is_empty() && self.statements.contains_key(view.name) {
            let name = String::from_utf8_lossy(view.name);
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Refusal::error("42P05", message).into());
        }
        make_room(&self.statements)?;
        self.statements.insert(view.name.to_vec(), request);
        self.say(answer::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let view = BindView::read(body).ok_or_else(|| malformed("a malformed Bind"))?;
        let request = self.statements.get(view.statement).cloned();
        let request = request.ok_or_else(|| no_statement(view.statement))?;
        let formats = Formats::read(&body[view.names_len()..])?;
        make_room(&self.portals)?;
        self.portals
            .insert(view.portal.to_vec(), (request, formats));
        self.say(answer::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Trouble> {
        let target = Target::read(body).ok_or_else(|| malformed("a malformed Describe"))?;
        let (heads, formats) = match target {
            Target::Statement(name) => {
                let request = self
                    .statements
                    .get(name)
                    .ok_or_else(|| no_statement(name))?;
                // It has no parameters.
                write_message(&mut self.out, answer::PARAMETER_DESCRIPTION, |b| {
                    b.extend_from_slice(&[0, 0]);
                });
                (request.heads(), Formats::default())
            }
            Target::Portal(name) => {
                let (request, formats) = self.portals.get(name).ok_or_else(no_portal)?;
                (request.heads(), formats.clone())
            }
        };
        match heads {
            Some(heads) => write_heads(&heads, &formats, &mut self.out),
            None => self.say(answer::NO_DATA),
        }
        Ok(())
    }

    /// Runs it. A client that leaves meanwhile takes its command with it, and so does a cancel.
    async fn execute(&mut self, request: &Request, formats: &Formats) -> Result<(), Trouble> {
        if matches!(request, Request::Empty) {
            self.say(answer::EMPTY_QUERY_RESPONSE);
            return Ok(());
        }
        // Looked at once more: a statement may have been prepared before a reload.
        let rank = self.rank();
        if let Request::Given(given) = request {
            given.check(rank)?;
        }
        let output = tokio::select! {
            biased;
            output = request.run(self.desk, rank) => output?,
            () = self.visit.cancelled() => {
                let message = "canceling statement due to user request";
                return Err(Refusal::error("57014", message).into());
            }
            () = left(&mut self.stream, &mut self.input) => return Err(Trouble::Gone),
        };
        output.write(formats, &mut self.out);
        Ok(())
    }
}

/// Until the client has left. What it says meanwhile is kept.
async fn left(stream: &mut Stream, input: &mut Vec<u8>) {
    while input.len() < MESSAGE_LEN_MAX {
        if take_in(stream, input).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

async fn take_in(stream: &mut Stream, input: &mut Vec<u8>) -> Result<(), Gone> {
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer).await {
        Ok(n) if n > 0 => {
            input.extend_from_slice(&buffer[..n]);
            Ok(())
        }
        _ => Err(Gone),
    }
}

/// Why a message was not obeyed.
enum Trouble {
    Gone,
    Refused(Refusal),
}

impl From<Gone> for Trouble {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn make_room<T>(names: &HashMap<Vec<u8>, T>) -> Result<(), Refusal> {
    if names.len() < NAMES_MAX {
        return Ok(());
    }
    Err(Refusal::error("53400", "too many prepared statements")
        .hint("Close those that are not used."))
}

fn no_statement(name: &[u8]) -> Refusal {
    let name = String::from_utf8_lossy(name);
    Refusal::error(
        "26000",
        format!("prepared statement \"{name}\" does not exist"),
    )
}

fn no_portal() -> Refusal {
    Refusal::error("34000", "portal does not exist")
}
