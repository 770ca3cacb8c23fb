//! The conversation with a client before its session: what is read and not used, what is to be sent, and the socket,
//! in the clear or not.

use std::io;
use std::task::{Poll, ready};

use bytes::{Buf as _, BytesMut};
use pooler_protocol::auth::{self, ChannelBinding};

use super::gate;
use crate::buffer::{Outbox, SharedScratch};
use crate::error::{ClientLoginError, Refusal};
use crate::net::{Peer, Stream};
use crate::tls::{Accepted, Acceptor, PeerCertificate};

/// Bytes that one read may take.
const READ_LEN: usize = 4096;

/// Room for the startup packet of nearly every client, in bytes.
const RECEIVED_ROOM: usize = 256;

/// Room for what nearly every client is told to the end of its login, in bytes.
const OUT_ROOM: usize = 1024;

const UNDER_WAY: &str = "BUG: the connection is used during its handshake";

/// A conversation before login.
#[derive(Debug)]
pub struct Talk {
    /// None while a handshake is under way.
    stream: Option<Stream>,
    peer: Peer,
    /// What a login can be bound to.
    binding: ChannelBinding,
    /// Whose verified certificate the client has shown.
    certificate: Option<PeerCertificate>,
    scratch: SharedScratch,
    received: BytesMut,
    /// What is to be sent with the next message that must go out.
    pub out: BytesMut,
    /// What was sent and the system did not take.
    unsent: Outbox,
}

impl Talk {
    /// Nothing said yet.
    pub(super) fn new(stream: Stream, peer: Peer, scratch: SharedScratch) -> Self {
        Self {
            stream: Some(stream),
            peer,
            binding: ChannelBinding::Unavailable,
            certificate: None,
            scratch,
            received: BytesMut::with_capacity(RECEIVED_ROOM),
            out: BytesMut::with_capacity(OUT_ROOM),
            unsent: Outbox::default(),
        }
    }

    /// The socket, who is at its other end, what was received but not used, and what is to be sent.
    #[must_use]
    pub fn into_parts(self) -> (Stream, Peer, Vec<u8>, Vec<u8>) {
        (
            self.stream.expect(UNDER_WAY),
            self.peer,
            self.received.into(),
            self.out.into(),
        )
    }

    /// Reads what the client has said by itself: nearly every one has, when its connection is taken, and its login
    /// need not wait for a look at all sockets first.
    pub(super) fn read_early(&mut self) {
        let stream = self.stream.as_mut().expect(UNDER_WAY);
        let mut scratch = self.scratch.borrow_mut();
        let input = &mut scratch.whole().input[..READ_LEN];
        // What has gone wrong shows when more is waited for.
        if let Ok(n) = stream.read_early(input) {
            self.received.extend_from_slice(&input[..n]);
        }
    }

    /// Waits for the client to say more, after it has been sent what is due.
    ///
    /// # Errors
    /// [`ClientLoginError::Gone`].
    pub(super) async fn read_more(&mut self) -> Result<(), ClientLoginError> {
        let n = std::future::poll_fn(|cx| {
            let stream = self.stream.as_mut().expect(UNDER_WAY);
            ready!(self.unsent.poll_flush(stream, cx))?;
            // The worker's buffer: one of its own would make every login two kilobytes larger.
            let mut scratch = self.scratch.borrow_mut();
            let input = &mut scratch.whole().input[..READ_LEN];
            let polled = stream.poll_read(cx, input);
            if let Poll::Ready(Ok(n)) = polled {
                self.received.extend_from_slice(&input[..n]);
            }
            polled
        })
        .await?;
        if n == 0 {
            return Err(ClientLoginError::Gone(
                "it closed the connection".to_owned(),
            ));
        }
        Ok(())
    }

    /// Sends what is due with the worker's next round: the client answers it before anything else
    /// happens, and [`Talk::read_more`] sends what the system did not take.
    pub(super) async fn send(&mut self) -> Result<(), ClientLoginError> {
        std::future::poll_fn(|cx| {
            let stream = self.stream.as_mut().expect(UNDER_WAY);
            Poll::Ready(self.unsent.send(stream, cx, &self.out))
        })
        .await?;
        self.out.clear();
        Ok(())
    }

    /// Waits until the system has taken what was sent: before somebody else uses the socket.
    pub(super) async fn flush(&mut self) -> Result<(), ClientLoginError> {
        let stream = self.stream.as_mut().expect(UNDER_WAY);
        Ok(std::future::poll_fn(|cx| self.unsent.poll_flush_all(stream, cx)).await?)
    }

    /// Goes on by TLS; what was received is the beginning of the handshake.
    pub(super) async fn encrypt(
        &mut self,
        acceptor: &Acceptor,
        direct: bool,
    ) -> Result<(), ClientLoginError> {
        self.flush().await?;
        let socket = self.stream.take().expect(UNDER_WAY);
        let input = self.received.split().to_vec();
        let accepted = Box::pin(acceptor.accept(socket, input, direct)).await;
        let Accepted { stream, peer } = accepted.map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => ClientLoginError::Handshake(e.to_string()),
            _ => ClientLoginError::Gone(format!("in the TLS handshake: {e}")),
        })?;
        self.stream = Some(stream);
        self.certificate = peer;
        self.binding = acceptor.binding().clone();
        Ok(())
    }

    /// What was received and not used.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// So many bytes of it are used.
    pub(super) fn consume(&mut self, used: usize) {
        self.received.advance(used);
    }

    /// Whose verified certificate the client has shown.
    pub(super) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_ref()
    }

    /// What a login can be bound to.
    pub(super) fn binding(&self) -> &ChannelBinding {
        &self.binding
    }

    /// The user of the operating system at the other end of a Unix socket.
    pub(super) fn peer_uid(&self) -> Option<u32> {
        self.stream.as_ref()?.peer_uid().ok()
    }

    /// Who is at the other end.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn origin(&self) -> gate::Origin {
        gate::Origin {
            peer: self.peer,
            encrypted: matches!(self.stream, Some(Stream::Tls(_))),
        }
    }

    /// Whether what is said can be read by others on the way.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stream, Some(Stream::Tcp(_)))
    }

    /// Sends what is due and the error; what cannot be sent at once is not waited for.
    pub fn refuse(&mut self, refusal: &Refusal) {
        let mut error = Vec::new();
        refusal.write(&mut error);
        self.out.extend_from_slice(&error);
        // What the client did not take would have to come first.
        if let Some(stream) = &mut self.stream
            && self.unsent.has_sent_all(stream)
        {
            let _sent = stream.try_write(&self.out);
        }
    }

    /// The body of the next 'p' message.
    pub(super) async fn next_password_message(
        &mut self,
        max: usize,
    ) -> Result<Vec<u8>, ClientLoginError> {
        self.send().await?;
        loop {
            if let Some((body, used)) = auth::next_message(&self.received, max)? {
                let body = body.to_vec();
                self.consume(used);
                return Ok(body);
            }
            self.read_more().await?;
        }
    }
}
