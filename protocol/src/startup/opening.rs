//! A connection from its first byte to the packet that says what it is for.
//!
//! ```text
//!          SSLRequest: 'N'   GSSENCRequest: 'N'        StartupMessage --> (a session)
//!              +------- Clear ------+         Clear, Tls ----<
//!                         |                            CancelRequest  --> (a cancel)
//!    SSLRequest: 'S', or a ClientHello where nothing came before
//!                         v
//!                        Tls
//! ```
//! Whoever drives it keeps what was received, asks [`Opening::next`], does what the step says and
//! asks again. Invariant: what a step calls the beginning of a handshake is everything that was
//! received and nothing that was read as something else, and behind an `S` it is nothing at all: no
//! byte is taken once in the clear and once through TLS (CVE-2021-23214).

use super::{FirstPacket, Negotiation, Startup, StartupError, parse};

/// See the module.
#[derive(Debug, Default)]
pub struct Opening {
    negotiation: Negotiation,
    offers_tls: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// More must be received; nothing is used up.
    More,
    /// So many bytes are used up: send this byte, and go on in the clear.
    Refuse {
        /// The length of the request.
        used: usize,
        /// The answer.
        answer: u8,
    },
    /// All that was received is used up: send this byte, and do a handshake that begins with what
    /// comes then.
    BeginTls {
        /// The answer.
        answer: u8,
    },
    /// Do a handshake that begins with all that was received.
    BeginTlsDirectly,
    /// A session of another connection is to be cancelled.
    Cancel {
        /// The process id that its BackendKeyData named.
        process_id: i32,
        /// Its secret.
        key: &'a [u8],
    },
    /// So many bytes are used up: a session is asked for.
    Session {
        /// The length of the packet.
        used: usize,
        /// What it says.
        startup: Startup,
    },
}

impl Opening {
    /// Of a connection whose client may have TLS if `offers_tls`.
    pub fn new(offers_tls: bool) -> Opening {
        Opening {
            negotiation: Negotiation::default(),
            offers_tls,
        }
    }

    /// Whether what is received now comes through TLS.
    pub fn is_encrypted(&self) -> bool {
        self.negotiation.is_encrypted()
    }

    /// Judges what was received and not used up. After an error, or a step that ends the opening,
    /// it must not be asked again.
    ///
    /// # Errors
    ///
    /// See [`StartupError`]. None of them leaves a connection that can go on.
    pub fn next<'a>(&mut self, received: &'a [u8]) -> Result<Step<'a>, StartupError> {
        let (packet, used) = match parse(received) {
            Err(StartupError::DirectTls) if self.offers_tls => {
                self.negotiation.begin_directly()?;
                return Ok(Step::BeginTlsDirectly);
            }
            Ok(None) => return Ok(Step::More),
            Ok(Some(parsed)) => parsed,
            Err(e) => return Err(e),
        };
        match packet {
            FirstPacket::SslRequest => {
                let buffered = received.len() - used;
                let answer = self.negotiation.answer_ssl(self.offers_tls, buffered)?;
                Ok(match self.offers_tls {
                    true => Step::BeginTls { answer },
                    false => Step::Refuse { used, answer },
                })
            }
            FirstPacket::GssEncRequest => {
                let answer = self.negotiation.answer_gss()?;
                Ok(Step::Refuse { used, answer })
            }
            FirstPacket::Cancel { process_id, key } => Ok(Step::Cancel { process_id, key }),
            FirstPacket::Startup(startup) => Ok(Step::Session { used, startup }),
        }
    }
}
