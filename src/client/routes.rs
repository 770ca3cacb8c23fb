//! Where statements may go, as the sessions of one worker and pool see it: the pool of the primary and
//! those of the replicas, what is known of the database's functions, and how often it was asked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use pooler_protocol::route::Catalogue;

use super::Hub;
use crate::cluster::Cluster;
use crate::cluster::select::{Place, Read};
use crate::config::{PoolMode, Routing};
use crate::pool::LocalPool;
use crate::server::catalogue::Database;

/// See the module.
#[derive(Debug)]
pub(super) struct Routes {
    /// Whose hosts these are.
    pub(super) cluster: Arc<Cluster>,
    /// What is known of the functions of the database.
    pub(super) database: Arc<Database>,
    /// The version of the primary's pool that all this is of.
    version: u32,
    home: Rc<LocalPool>,
    replicas: RefCell<Vec<Option<Rc<LocalPool>>>>,
    /// The worker's own handle to the catalogue, and its version.
    catalogue: RefCell<(Option<u64>, Arc<Catalogue>)>,
    turn: Cell<u32>,
}

impl Routes {
    /// For the clients of `home`; nothing if all of its statements go to the primary.
    fn new(hub: &Hub, home: &Rc<LocalPool>) -> Option<Self> {
        let pool = home.shared();
        let version = pool.version();
        let plan = pool.plan();
        let off = plan.settings.routing == Routing::Off;
        if off || plan.settings.pool_mode == PoolMode::Session {
            return None;
        }
        let cluster = hub.registry.cluster_of(pool)?;
        Some(Self {
            database: plan.recipe.catalogue.clone()?,
            version,
            replicas: RefCell::new(vec![None; cluster.hosts().len()]),
            cluster,
            home: Rc::clone(home),
            catalogue: RefCell::default(),
            turn: Cell::new(0),
        })
    }

    /// What is known of the database's functions, with its version. While that may have changed, nothing
    /// is.
    #[inline]
    pub(super) fn catalogue(&self) -> (Option<u64>, Arc<Catalogue>) {
        let definitions = self.home.commons().interners.definitions();
        let version = self.database.version(definitions);
        let mut known = self.catalogue.borrow_mut();
        if known.0 != version {
            let catalogue = version.and_then(|_| self.database.catalogue());
            *known = (version, catalogue.unwrap_or_default());
        }
        (version, Arc::clone(&known.1))
    }

    /// Where a read goes; whether that is one of the first choice.
    #[inline]
    pub(super) fn place(&self, read: Read) -> Option<(Place, bool)> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let replicas = self.replicas.borrow();
        let load = |host: usize| replicas[host].as_ref().map_or(0, |pool| pool.load());
        self.cluster.place_read(read, turn, load)
    }

    /// The pool of a place; that of the primary if a reload has taken the replica away.
    #[inline]
    pub(super) fn pool(&self, hub: &Hub, place: Place) -> Rc<LocalPool> {
        let Place::Replica(host) = place else {
            return Rc::clone(&self.home);
        };
        if let Some(pool) = &self.replicas.borrow()[host] {
            return Rc::clone(pool);
        }
        self.open(hub, host)
    }

    #[cold]
    fn open(&self, hub: &Hub, host: usize) -> Rc<LocalPool> {
        let pool = hub
            .registry
            .replica_pool(self.home.shared(), &self.cluster, host);
        let Some(pool) = pool else {
            return Rc::clone(&self.home);
        };
        let local = hub.pools.local(&pool);
        self.replicas.borrow_mut()[host] = Some(Rc::clone(&local));
        local
    }

    /// What a client has shown at its login opens servers of the replicas, too.
    fn pass_on_keys(&self) {
        for pool in self.replicas.borrow().iter().flatten() {
            pool.shared().learn_from(self.home.shared());
        }
    }

    /// The host of a replica's pool.
    pub(super) fn host_of(&self, pool: &LocalPool) -> Option<usize> {
        self.cluster.find(pool.shared().key.replica.as_deref()?)
    }
}

/// Those of a worker, by the number of the primary's pool.
#[derive(Debug, Default)]
pub struct RouteTable(RefCell<BTreeMap<u64, Rc<Routes>>>);

impl RouteTable {
    /// Those for the clients of `home`, if not all of its statements go to the primary.
    pub(super) fn of(&self, hub: &Hub, home: &Rc<LocalPool>) -> Option<Rc<Routes>> {
        let pool = home.shared();
        let mut table = self.0.borrow_mut();
        if let Some(known) = table.get(&pool.id)
            && known.version == pool.version()
        {
            known.pass_on_keys();
            return Some(Rc::clone(known));
        }
        table.remove(&pool.id);
        let routes = Rc::new(Routes::new(hub, home)?);
        table.insert(pool.id, Rc::clone(&routes));
        Some(routes)
    }

    /// Forgets those that no session uses.
    pub fn prune(&self) {
        self.0
            .borrow_mut()
            .retain(|_, routes| Rc::strong_count(routes) > 1);
    }
}
