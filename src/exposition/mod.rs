//! The HTTP endpoint: what the process says of itself to monitoring.
//!
//! A scrape reads the counters that the workers write anyway, adds them up and renders them; nothing is kept
//! for it, and no worker does anything. The status page keeps a few numbers of the last minutes (`history`),
//! and asks the workers who is busy, once a second at most, while somebody looks (`status`). All of it runs on
//! the main thread's event loop and threads beside it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::admin::Desk;
use crate::cluster::PrimaryState;
use crate::registry::{Closed, Registry};

mod clusters;
mod history;
mod hosts;
mod http;
#[cfg(test)]
mod http_tests;
mod page;
mod pools;
mod process;
mod render;
mod roll;
mod status;
#[cfg(test)]
mod status_tests;
mod table;
#[cfg(test)]
mod tests;
mod totals;

use render::Exporter;
use status::Board;

/// The endpoint; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Exposition {
    site: Arc<Site>,
    address: Option<SocketAddr>,
    tasks: Vec<AbortHandle>,
}

impl Exposition {
    /// Whether new clients are let in.
    pub(crate) fn set_accepting(&self, accepting: bool) {
        self.site.accepting.store(accepting, Ordering::Relaxed);
    }

    /// Where it listens, if it does.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests ask which port it is"))]
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Exposition {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What the endpoint has to say.
#[derive(Debug)]
struct Site {
    registry: Arc<Registry>,
    exporter: Exporter,
    board: Board,
    accepting: AtomicBool,
}

impl Site {
    fn new(desk: Arc<Desk>) -> Arc<Self> {
        let registry = Arc::clone(&desk.registry);
        Arc::new(Self {
            exporter: Exporter::new(Arc::clone(&registry)),
            registry,
            board: Board::new(desk),
            accepting: AtomicBool::new(true),
        })
    }

    /// Whether there is a status page, as configured now.
    fn has_page(&self) -> bool {
        self.registry.current().config.metrics.status_page
    }

    /// Why new clients should go elsewhere, if they should.
    fn unready(&self) -> Option<String> {
        if !self.accepting.load(Ordering::Relaxed) {
            return Some("the pooler is draining and accepts no new clients".to_owned());
        }
        if self.registry.gates_now().everything == Closed::Suspended {
            return Some("the pooler is suspended and lets no new clients in".to_owned());
        }
        let current = self.registry.current();
        let clusters = current.clusters().values();
        let mut lost: Vec<&str> = clusters
            .filter(|c| c.primary_state() == PrimaryState::Lost)
            .map(|c| c.name())
            .collect();
        lost.sort_unstable();
        (!lost.is_empty()).then(|| format!("no primary in: {}", lost.join(", ")))
    }
}

/// Starts it; without an address there is none.
///
/// # Errors
/// Which address it cannot listen on, and what to change.
pub(crate) async fn start(desk: Arc<Desk>, listen: Option<SocketAddr>) -> io::Result<Exposition> {
    let site = Site::new(desk);
    let Some(listen) = listen else {
        return Ok(Exposition {
            site,
            address: None,
            tasks: Vec::new(),
        });
    };
    let explain = |e: io::Error| io::Error::new(e.kind(), explanation(listen, &e));
    let listener = TcpListener::bind(listen).await.map_err(explain)?;
    let address = listener.local_addr()?;
    tracing::info!("metrics on http://{address}/metrics");
    let serving = tokio::spawn(http::accept_all(listener, Arc::clone(&site)));
    let looking = tokio::spawn(status::keep_history(Arc::clone(&site)));
    Ok(Exposition {
        site,
        address: Some(address),
        tasks: vec![serving.abort_handle(), looking.abort_handle()],
    })
}

fn explanation(listen: SocketAddr, e: &io::Error) -> String {
    let what = match e.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it, or change",
        io::ErrorKind::PermissionDenied => "use a port above 1023 in",
        _ => "change",
    };
    format!("cannot serve metrics on {listen}: {e}; {what} [metrics] listen (\"\" turns it off)")
}
