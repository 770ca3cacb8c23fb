//! What happens in a pool without anybody asking: old servers are closed, quiet ones judged, the
//! minimum kept, and attempts made again after a pause.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::local::{LocalPool, LocalPools};

impl LocalPool {
    /// One round; a few a second.
    pub fn sweep(self: &Rc<Self>, now: Instant) {
        let settings = Arc::clone(&self.shared().plan().settings);
        let servers = self.shared().numbers().servers;
        let mut spare = servers.saturating_sub(settings.min_pool_size);
        // After a reload that made the pool smaller.
        let mut excess = servers.saturating_sub(settings.pool_size + settings.reserve_pool_size);
        let mut at = 0;
        loop {
            let mut idle = self.idle.borrow_mut();
            let Some(server) = idle.get_mut(at) else {
                break;
            };
            let too_long = settings.server_idle_timeout.is_some_and(|limit| {
                now.saturating_duration_since(server.since)
                    >= limit.mul_f64(server.pooled.idle_share)
            });
            let broken = server.pooled.server.judge_idle().err();
            let stale = self.is_stale(&server.pooled, now);
            drop(idle);
            if let Some(e) = &broken {
                tracing::debug!(pool = %self.shared().key, "idle server closed: {e}");
            }
            if broken.is_some() || stale || excess > 0 || (too_long && spare > 0) {
                spare = spare.saturating_sub(1);
                excess = excess.saturating_sub(1);
                self.drop_idle(at);
            } else {
                at += 1;
            }
        }
        self.yield_idle();
        self.read_names_again(now);
        self.shared().rest_listener();
        self.grow(now);
    }
}

impl LocalPools {
    /// One round over all pools of this worker.
    pub fn sweep(&self, now: Instant) {
        for local in self.all() {
            local.sweep(now);
        }
        self.prune();
    }
}
