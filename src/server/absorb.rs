//! Reading a server for the pooler's own sake: questions of its own, and replies that nobody wants
//! any more.

use std::io;

use pooler_protocol::backend::{ErrorView, read_parameter_status, tag};
use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::ledger::Deal;
use pooler_protocol::prepared::ClientStatements;

use super::{Pass, Server};
use crate::error::ServerFault;

/// The longest message that is looked at; a longer one is read past.
const LOOK_LEN_MAX: usize = 64 * 1024;

impl Server {
    /// Asks something and waits for the end of the answer; `see` gets each message of it. The
    /// caller sets a deadline. Dropped midway, the server owes an answer and cannot be reused.
    ///
    /// # Errors
    /// [`ServerFault`]; `Settings` with the server's message if the statement failed.
    pub async fn ask(
        &mut self,
        sql: &str,
        mut see: impl FnMut(u8, &[u8]),
    ) -> Result<(), ServerFault> {
        let mut failed = None;
        let mut query = Vec::new();
        self.put_own_query(sql, &mut query);
        self.outbox.append(|out| out.append(&mut query));
        self.absorb(&mut |tag, body| {
            if tag == tag::ERROR_RESPONSE {
                failed = Some(ErrorView::new(body).message());
            }
            see(tag, body);
        })
        .await?;
        failed.map_or(Ok(()), |message| Err(ServerFault::Settings(message)))
    }

    /// Sends what is unsent and reads until nothing is owed; `see` gets each message of at most
    /// 64 kB. The caller sets a deadline. Dropped midway, the rest is still owed.
    ///
    /// # Errors
    /// [`ServerFault`]: the connection is of no use then.
    pub async fn absorb(&mut self, see: &mut impl FnMut(u8, &[u8])) -> Result<(), ServerFault> {
        self.absorb_at_most(usize::MAX, see).await
    }

    /// As [`Server::absorb`], but no more than about `bytes_max` bytes are read.
    ///
    /// # Errors
    /// [`ServerFault`]; `TooMuch` if more is owed.
    pub async fn absorb_at_most(
        &mut self,
        bytes_max: usize,
        see: &mut impl FnMut(u8, &[u8]),
    ) -> Result<(), ServerFault> {
        let mut buffer = vec![0; 16 * 1024];
        let mut total = 0;
        std::future::poll_fn(|cx| self.outbox.poll_flush_all(&mut self.stream, cx)).await?;
        while self.ledger.outstanding() > 0 {
            self.pass_over_answers();
            if self.ledger.outstanding() == 0 {
                break;
            }
            if total > bytes_max {
                return Err(ServerFault::TooMuch);
            }
            let n = self.stream.read(&mut buffer).await?;
            if n == 0 {
                return Err(ServerFault::Closed);
            }
            total += n;
            self.digest(&buffer[..n], see)?;
        }
        Ok(())
    }

    /// Waits until a server that owes nothing sends something; `see` gets each message. Dropped midway,
    /// nothing is lost.
    ///
    /// # Errors
    /// [`ServerFault`]: the connection is of no use then.
    pub async fn arrived(&mut self, mut see: impl FnMut(u8, &[u8])) -> Result<(), ServerFault> {
        let mut buffer = vec![0; 16 * 1024];
        let n = self.stream.read(&mut buffer).await?;
        if n == 0 {
            return Err(ServerFault::Closed);
        }
        self.digest(&buffer[..n], &mut see)
    }

    /// Judges what arrived while the server was idle: only asynchronous messages are allowed then.
    /// Makes no system call unless something did arrive.
    ///
    /// # Errors
    /// [`ServerFault`] if the server must be closed.
    #[inline]
    pub fn judge_idle(&mut self) -> Result<(), ServerFault> {
        if self.stream.is_readable() {
            return self.judge_arrived();
        }
        Ok(())
    }

    #[cold]
    fn judge_arrived(&mut self) -> Result<(), ServerFault> {
        let mut first = [0; 512];
        loop {
            let n = match self.stream.try_read(&mut first) {
                Ok(0) => return Err(ServerFault::Closed),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            let mut goodbye = None;
            self.digest(&first[..n], &mut |tag, body| {
                if tag == tag::ERROR_RESPONSE {
                    goodbye = Some(ErrorView::new(body).message());
                }
            })?;
            if let Some(message) = goodbye {
                return Err(ServerFault::Io(io::Error::other(message)));
            }
        }
    }

    /// Takes `bytes` as the next that the server sent.
    fn digest(&mut self, bytes: &[u8], see: &mut impl FnMut(u8, &[u8])) -> Result<(), ServerFault> {
        self.carry.push(bytes);
        let input = self.carry.take();
        let mut at = self.pass.rest.min(input.len());
        self.pass.rest -= at;
        while let Some(header) = Header::read(&input[at..])? {
            let available = &input[at..];
            if header.len > available.len() && header.len <= LOOK_LEN_MAX {
                break;
            }
            let here = header.len.min(available.len());
            let body = &available[HEADER_LEN..here];
            self.settle(header, body)?;
            see(header.tag, body);
            at += here;
            self.pass = Pass {
                rest: header.len - here,
                deal: Deal::Skip,
            };
        }
        self.carry.replace(&input[at..]);
        Ok(())
    }

    /// Nobody is there to be given them, but what they stand for is true all the same.
    fn pass_over_answers(&mut self) {
        while let Some((_, kept)) = self.ledger.take_answer() {
            self.journal.keep(kept);
        }
    }

    fn settle(&mut self, header: Header, body: &[u8]) -> Result<(), ServerFault> {
        self.pass_over_answers();
        let status = body.first().copied().unwrap_or(0);
        let verdict = self.ledger.response(header.tag, status)?;
        self.journal.keep(verdict.kept);
        // The settings of the client that has gone, say, were cancelled with it: they are not set.
        self.dirty |= header.tag == tag::ERROR_RESPONSE && verdict.deal == Deal::Skip;
        if verdict.voided > 0 {
            let (voided, failed) = (verdict.voided, verdict.failed);
            // The client is gone: only the server's side of the journal matters.
            let mut nobody = ClientStatements::default();
            self.journal
                .void(&mut nobody, &mut self.statements, voided, failed);
        }
        if header.tag == tag::PARAMETER_STATUS
            && let Some((name, value)) = read_parameter_status(body)
            && self.settings.find(name).is_none()
        {
            // Its configuration was reloaded, or it was promoted (trap 35).
            let mut welcome = (*self.welcome).clone();
            welcome.put(name, value);
            self.welcome = welcome.into();
        }
        Ok(())
    }
}
