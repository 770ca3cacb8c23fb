//! A client that logs in (trust), asks, and counts what comes back: for what pgbench is too slow or too large.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::ClientConfig;

use crate::tls;

/// How much is read at a time, where speed matters.
pub(crate) const BUFFER: usize = 256 * 1024;

/// What is read from and written to.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// A logged-in connection between two queries.
pub(crate) struct Client(Box<dyn Wire>);

impl Client {
    pub(crate) fn connect(port: u16, user: &str, database: &str) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        Self::log_in(Box::new(stream), user, database)
    }

    /// The same by TLS.
    pub(crate) fn connect_by_tls(
        port: u16,
        user: &str,
        database: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        Self::log_in(Box::new(tls::connect(port, config)?), user, database)
    }

    fn log_in(mut stream: Box<dyn Wire>, user: &str, database: &str) -> io::Result<Self> {
        let mut body = Vec::from(196_608_u32.to_be_bytes());
        for text in ["user", user, "database", database, ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        stream.write_all(&length_of(&body))?;
        stream.write_all(&body)?;
        let mut client = Self(stream);
        client.read_until_ready(&mut [0; 4096], |_| ())?;
        Ok(client)
    }

    /// Runs a query, throws its rows away, and gives `count` every number of bytes as they come.
    pub(crate) fn query(
        &mut self,
        sql: &str,
        buffer: &mut [u8],
        count: impl FnMut(usize),
    ) -> io::Result<()> {
        let mut message = vec![b'Q'];
        let mut text = Vec::from(sql.as_bytes());
        text.push(0);
        message.extend_from_slice(&length_of(&text));
        message.extend_from_slice(&text);
        self.0.write_all(&message)?;
        self.read_until_ready(buffer, count)
    }

    /// Reads to ReadyForQuery, which must be the last that was sent; an ErrorResponse is an error.
    fn read_until_ready(
        &mut self,
        buffer: &mut [u8],
        mut count: impl FnMut(usize),
    ) -> io::Result<()> {
        let mut walk = Walk::default();
        loop {
            let read = self.0.read(buffer)?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed",
                ));
            }
            count(read);
            let bytes = &buffer[..read];
            walk.over(bytes)
                .map_err(|at| error_response(&bytes[at..]))?;
            if walk.is_ready() {
                return Ok(());
            }
        }
    }
}

/// Where in the stream of messages we are. A header is collected over reads, a body only counted down.
#[derive(Default)]
struct Walk {
    header: [u8; 5],
    have: usize,
    body_left: usize,
}

impl Walk {
    /// Goes over more bytes; the error is where an ErrorResponse's body begins.
    fn over(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.have < 5 {
                self.header[self.have] = bytes[at];
                self.have += 1;
                at += 1;
                if self.have == 5 {
                    let [kind, length @ ..] = self.header;
                    self.body_left = u32::from_be_bytes(length) as usize - 4;
                    if kind == b'E' {
                        return Err(at);
                    }
                }
            } else if self.body_left == 0 {
                self.have = 0;
            } else {
                let step = self.body_left.min(bytes.len() - at);
                self.body_left -= step;
                at += step;
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.have == 5 && self.header[0] == b'Z' && self.body_left == 0
    }
}

/// The length field of a message with this body.
fn length_of(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len() + 4)
        .expect("our messages are short")
        .to_be_bytes()
}

fn error_response(body: &[u8]) -> io::Error {
    let message = body
        .split(|&byte| byte == 0)
        .find_map(|field| field.strip_prefix(b"M"));
    io::Error::other(format!(
        "ErrorResponse: {}",
        String::from_utf8_lossy(message.unwrap_or(body))
    ))
}
