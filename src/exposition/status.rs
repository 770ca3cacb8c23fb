//! `/status.json`: collected when somebody asks, at most once in [`FRESH`], and shared by all who ask.
//!
//! A collection goes on to its end even if whoever asked has left: a crowd that comes and goes costs the
//! workers as much as one viewer. Whoever asks meanwhile waits for it, [`ANSWER_MAX`] and a little at most.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Mutex;

use super::Site;
use super::history::{EVERY, History};
use crate::admin::{Desk, Sight};
use crate::registry::Registry;
use crate::status::Status;

/// How long a collected status is given out.
const FRESH: Duration = Duration::from_secs(1);

/// How long a worker may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    desk: Arc<Desk>,
    history: Arc<History>,
    began: Instant,
    /// When it was collected, and the text. Locked through a collection, so that there is one at a time.
    collected: Mutex<Option<(Instant, Bytes)>>,
}

impl Board {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self {
            desk,
            history: Arc::default(),
            began: Instant::now(),
            collected: Mutex::default(),
        }
    }

    /// The text, at most a second old. Not to be dropped midway: see the module.
    async fn text(&self, site: &Arc<Site>) -> Option<Bytes> {
        let mut collected = self.collected.lock().await;
        if let Some((at, text)) = &*collected
            && at.elapsed() < FRESH
        {
            return Some(text.clone());
        }
        let sight = self.desk.sight(ANSWER_MAX).await;
        let site = Arc::clone(site);
        let composed = tokio::task::spawn_blocking(move || site.board.compose(&site, &sight));
        let text = composed.await.ok()?;
        *collected = Some((Instant::now(), text.clone()));
        Some(text)
    }

    fn compose(&self, site: &Site, sight: &Sight) -> Bytes {
        let since_1970 = UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datacenter: site.registry.current().config.pooler.datacenter.clone(),
            collected: since_1970.as_secs_f64(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            unready: site.unready(),
            ..Status::default()
        };
        self.desk.describe(sight, &mut status);
        self.history.describe(Instant::now(), &mut status);
        // Numbers, texts and lists of them have a form in JSON, always.
        serde_json::to_vec(&status).unwrap_or_default().into()
    }
}

/// The text for one who asks; `held` is dropped when it is there.
pub(super) async fn text<T: Send + 'static>(site: Arc<Site>, held: T) -> Option<Bytes> {
    let collecting = tokio::spawn(async move {
        let text = site.board.text(&site).await;
        drop(held);
        text
    });
    collecting.await.ok().flatten()
}

/// Looks at the counters for ever, while there is a page to show them.
pub(super) async fn keep_history(site: Arc<Site>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let history = Arc::clone(&site.board.history);
        if !site.has_page() {
            history.clear();
            continue;
        }
        let registry: Arc<Registry> = Arc::clone(&site.registry);
        let look = tokio::task::spawn_blocking(move || history.look(&registry, Instant::now()));
        if look.await.is_err() {
            tracing::error!("BUG: the history of the status page cannot be kept");
        }
    }
}
