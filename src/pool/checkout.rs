//! Having a server, and waiting for one.
//!
//! A [`Checkout`] is a server in use. It ends by [`Checkout::release`], which costs the ledger's
//! proof, or by being dropped, which closes the server: forgetting it does the safe thing.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pooler_protocol::ledger::Reusable;

use super::local::{self, LocalPool};
use super::state::Ticket;
use super::{Permits, Pool};
use crate::error::LoginError;
use crate::net::Stream;
use crate::server::Server;

/// A place among the servers of a pool, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    pub(super) pool: Arc<Pool>,
    pub(super) permits: Permits,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.permits.0.clear();
        let mut state = self.pool.state();
        state.closed();
        let wanted = state.waiting() > 0;
        drop(state);
        if wanted {
            self.pool.ask_to_grow();
        }
    }
}

/// A server with its place in the pool.
#[derive(Debug)]
pub struct Pooled<S = Stream> {
    pub(super) server: Server<S>,
    pub(super) slot: Slot,
    /// When it is to be closed for age.
    pub(super) expires: Option<Instant>,
    /// Share of `server_idle_timeout` after which it is closed, 0.8 to 1.
    pub(super) idle_share: f64,
    /// The pool's generation when it was opened.
    pub(super) generation: u32,
}

impl<S> Pooled<S> {
    /// The same with another server in its place, which is how it goes from worker to worker.
    pub(super) fn map<T>(
        self,
        map: impl FnOnce(Server<S>) -> std::io::Result<Server<T>>,
    ) -> std::io::Result<Box<Pooled<T>>> {
        Ok(Box::new(Pooled {
            server: map(self.server)?,
            slot: self.slot,
            expires: self.expires,
            idle_share: self.idle_share,
            generation: self.generation,
        }))
    }
}

/// A server in use.
#[derive(Debug)]
pub struct Checkout {
    pooled: Option<Box<Pooled>>,
    local: Rc<LocalPool>,
}

impl Checkout {
    pub(super) fn new(pooled: Box<Pooled>, local: Rc<LocalPool>) -> Self {
        Self {
            pooled: Some(pooled),
            local,
        }
    }

    /// Gives it back to the pool: to the client that has waited longest, or to idle on this worker.
    #[inline]
    pub fn release(mut self, _proof: Reusable, now: Instant) {
        // A cancel that may still land would hit whoever came next (trap 13).
        if self.cancels.is_lost() {
            return;
        }
        if let Some(mut pooled) = self.pooled.take() {
            pooled.server.end_checkout();
            self.local.take_back(pooled, now);
        }
    }

    /// Whether somebody in another pool, which may open no server as long as this one is there, has
    /// waited longer than anybody in this one.
    #[must_use]
    pub fn is_due_elsewhere(&self) -> bool {
        let Some(pooled) = &self.pooled else {
            return false;
        };
        let permits = pooled.slot.permits.0.iter();
        let Some(there) = permits.filter_map(|p| p.limit().wanted_since()).min() else {
            return false;
        };
        self.local
            .shared()
            .oldest_since()
            .is_none_or(|here| there < here)
    }

    /// Closes it instead. It keeps its place until PostgreSQL has closed its side, too.
    pub fn close(mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.local.in_use_less();
            local::close(pooled);
        }
    }

    /// Whether it is closed as soon as it comes back, because its pool is to have new ones.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let pooled = self.pooled.as_ref();
        pooled.is_some_and(|pooled| self.local.is_outdated(pooled))
    }

    /// The pool that it is of.
    #[must_use]
    pub fn pool(&self) -> &Rc<LocalPool> {
        &self.local
    }
}

impl Deref for Checkout {
    type Target = Server;
    #[inline]
    fn deref(&self) -> &Server {
        &self
            .pooled
            .as_ref()
            .expect("BUG: a released checkout")
            .server
    }
}

impl DerefMut for Checkout {
    #[inline]
    fn deref_mut(&mut self) -> &mut Server {
        &mut self
            .pooled
            .as_mut()
            .expect("BUG: a released checkout")
            .server
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(mut pooled) = self.pooled.take() {
            self.local.in_use_less();
            pooled.server.terminate();
        }
    }
}

/// A place in the queue. Dropping it leaves the queue; a server that was delivered meanwhile goes
/// to the next (trap 37).
#[derive(Debug)]
pub struct Wait {
    pub(super) local: Rc<LocalPool>,
    pub(super) cell: usize,
    pub(super) ticket: Ticket,
    pub(super) since: Instant,
}

/// How it is around a client that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// Servers that are not idle.
    pub in_use: usize,
    /// Clients that wait.
    pub waiting: usize,
    /// How many have waited for longer, and one for itself.
    pub position: usize,
}

impl Wait {
    /// The server, once it is this client's turn.
    ///
    /// # Errors
    /// Why no server can be opened for anybody of this pool.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Checkout, Arc<LoginError>>> {
        self.local.poll_cell(self.cell, cx)
    }

    /// Since when it waits.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Of which pool it waits for a server.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        self.local.shared()
    }

    /// How it is around it in `family`, the pools that share a size with its own.
    #[must_use]
    pub fn crowd(&self, family: &[Arc<Pool>]) -> Crowd {
        let mut crowd = Crowd {
            in_use: 0,
            waiting: 0,
            position: self.position(),
        };
        for pool in family {
            let numbers = pool.numbers();
            crowd.in_use += numbers.servers - numbers.idle.min(numbers.servers);
            crowd.waiting += numbers.waiting;
            if pool.id != self.pool().id {
                crowd.position += pool.state().waiting_before(self.since);
            }
        }
        crowd
    }

    /// How many wait before it, and one for itself.
    #[must_use]
    pub fn position(&self) -> usize {
        self.local.shared().state().position(self.ticket)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.local.leave(self.cell, self.ticket);
    }
}
