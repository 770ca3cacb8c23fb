//! The connection that listens for all clients of a pool: opened when the first of them is handed
//! over, closed when none is left. It is one more than the pool's size, and counts for every limit.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connect::try_host;
use super::limit::Permit;
use super::local::LocalPool;
use super::{Candidate, Plan, Pool};
use crate::server::Server;
use crate::server::listening::{self, Command, Exchange, Link};

/// The connection of a pool, if there is one.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<Option<Exchange>>);

impl Listener {
    fn current(&self) -> MutexGuard<'_, Option<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Whether there is a connection that listens for clients.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        let current = self.listener.current();
        current
            .as_ref()
            .is_some_and(|exchange| !exchange.is_closed())
    }

    /// Has the connection closed if nobody listens by it.
    pub(super) fn rest_listener(&self) {
        let mut current = self.listener.current();
        if current.as_ref().is_some_and(Exchange::is_idle) {
            *current = None;
        }
    }
}

impl LocalPool {
    /// A link to the connection that listens; opens one if there is none.
    #[must_use]
    pub fn link(self: &Rc<Self>) -> Link {
        let pool = self.shared();
        let mut current = pool.listener.current();
        if let Some(exchange) = current.as_ref().filter(|e| !e.is_closed()) {
            return exchange.link();
        }
        let (commands, heard) = unbounded_channel();
        let exchange = Exchange::new(commands);
        let link = exchange.link();
        tokio::task::spawn_local(listen(Rc::clone(self), exchange.private(), heard));
        *current = Some(exchange);
        link
    }

    async fn open_listener(&self, plan: &Plan) -> Option<(Server, Vec<Permit>)> {
        for candidate in plan.recipe.locate.candidates() {
            let mut permits = vec![candidate.connections.try_take()?];
            for limit in &plan.limits {
                permits.push(limit.try_take()?);
            }
            if let Some(server) = self.try_listener(plan, &candidate).await {
                return Some((server, permits));
            }
        }
        None
    }

    async fn try_listener(&self, plan: &Plan, candidate: &Candidate) -> Option<Server> {
        match try_host(self, plan, candidate).await {
            Ok(opened) => opened.map(|(server, _)| server),
            Err(e) => {
                tracing::warn!(pool = %self.shared().key, "cannot open a connection that listens: {e}");
                None
            }
        }
    }
}

async fn listen(local: Rc<LocalPool>, private: Arc<str>, mut heard: UnboundedReceiver<Command>) {
    let plan = local.shared().plan();
    let Some((mut server, permits)) = local.open_listener(&plan).await else {
        return listening::refuse(heard);
    };
    match listening::serve(&mut server, &private, &mut heard).await {
        Ok(()) => server.terminate(),
        Err(fault) => {
            let host = &server.identity.host;
            tracing::warn!(pool = %local.shared().key, server = %host, "the connection that listens is lost: {fault}");
        }
    }
    listening::refuse(heard);
    drop(permits);
}
