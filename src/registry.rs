//! What is configured now: the configuration with its clusters, pools and limits, shared by all
//! workers and replaced as a whole by a reload.
//!
//! A reload builds everything anew first and swaps it in one step; pools whose plan did not change
//! keep their servers, and a bad file changes nothing (trap 74).
//! What an operator has closed for a while (`gates`) outlives a reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use pooler_protocol::auth::Verifier;

use crate::cluster::{Change, Cluster, ReplicaOf};
use crate::config::{Config, Database, PoolMode, PoolSettings, Routing};
use crate::error::Refusal;
use crate::lookup::{self, Lookup};
use crate::observe::Spans;
use crate::pool::limit::Limit;
use crate::pool::{Commons, Locate, Plan, Pool, PoolKey, Recipe, StartupParameters, liveness};
use crate::server::catalogue;
use crate::tls::Tls;

mod attempts;
mod counts;
mod forgotten;
mod gates;
mod secrets;

pub use attempts::Attempts;
pub use counts::{LoginCounts, ReloadCounts};
pub use forgotten::{ByDatabase, Totals};
pub use gates::{Closed, Closing, Gates};
pub(crate) use secrets::credentials;
pub use secrets::credentials_of;

/// One configuration and what was made of it.
#[derive(Debug)]
pub struct Current {
    /// The configuration.
    pub config: Config,
    /// TLS as it is configured.
    pub tls: Tls,
    /// Whether of some user a verifier is known, or may be found, and not a password.
    pub has_verifiers: bool,
    clusters: HashMap<String, Arc<Cluster>>,
    /// Who looks users up, by the name of the cluster.
    lookups: HashMap<String, Arc<Lookup>>,
    /// Verifiers made of plain passwords: made once, because making one takes as long as a
    /// thousand transactions.
    verifiers: Mutex<HashMap<String, Verifier>>,
}

impl Current {
    /// The verifier made for `user` earlier.
    #[must_use]
    pub fn known_verifier(&self, user: &str) -> Option<Verifier> {
        lock(&self.verifiers).get(user).cloned()
    }

    /// Keeps the verifier made for `user`.
    pub fn keep_verifier(&self, user: &str, verifier: Verifier) {
        lock(&self.verifiers).insert(user.to_owned(), verifier);
    }

    /// Who looks up the users of `database`, if anybody does.
    #[must_use]
    pub fn lookup(&self, database: &str) -> Option<&Arc<Lookup>> {
        let configured = self.config.database(database)?;
        self.lookups.get(&configured.cluster)
    }

    /// Who can be asked for the roles of users of `database`; for the console, which has none, anybody.
    #[must_use]
    pub fn roles_of(&self, database: &str) -> Option<&Arc<Lookup>> {
        let known = self.lookup(database);
        known.or_else(|| {
            self.lookups
                .values()
                .min_by_key(|l| l.recipe().cluster.name())
        })
    }

    /// The clusters, by name.
    #[must_use]
    pub fn clusters(&self) -> &HashMap<String, Arc<Cluster>> {
        &self.clusters
    }
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    /// What all pools share.
    pub commons: Arc<Commons>,
    current: RwLock<Arc<Current>>,
    /// In a tree: a hash that strangers cannot make collide costs a login more than the few names it is compared with.
    pools: Mutex<BTreeMap<PoolKey, Arc<Pool>>>,
    limits: Mutex<HashMap<LimitKey, Arc<Limit>>>,
    /// What is known of databases, by cluster and name.
    databases: Mutex<HashMap<(String, String), Arc<catalogue::Database>>>,
    /// What pools had done that are gone.
    forgotten: forgotten::Forgotten,
    /// Never locked before `pools`.
    gates: Mutex<Gates>,
    /// `max_client_conn`.
    pub clients: Arc<Limit>,
    /// Sessions that exist, logins under way included; a shutdown waits for them.
    pub sessions: AtomicUsize,
    /// Logins.
    pub logins: LoginCounts,
    /// Logins that failed lately.
    pub attempts: Attempts,
    /// Reloads.
    pub reloads: ReloadCounts,
    /// Traces on their way out.
    pub spans: Arc<Spans>,
    /// Random, so that a mock login of an unknown user looks the same each time.
    pub mock_secret: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum LimitKey {
    PoolServers(String, String),
    DatabaseServers(String),
    UserServers(String),
    DatabaseClients(String),
    UserClients(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// With `config` in force, and `tls` made of it.
    #[must_use]
    pub fn new(config: Config, tls: Tls, commons: Arc<Commons>) -> Arc<Self> {
        let clients = Limit::new(config.pooler.max_client_conn.count());
        Arc::new(Self {
            current: RwLock::new(Arc::new(build(config, tls, &commons, None))),
            pools: Mutex::default(),
            limits: Mutex::default(),
            databases: Mutex::default(),
            forgotten: forgotten::Forgotten::default(),
            gates: Mutex::default(),
            clients,
            sessions: AtomicUsize::new(0),
            logins: LoginCounts::default(),
            attempts: Attempts::default(),
            reloads: ReloadCounts::default(),
            spans: Arc::default(),
            mock_secret: rand::random(),
            commons,
        })
    }

    /// What is in force now.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every pool.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        lock(&self.pools).values().cloned().collect()
    }

    /// The pools that share a size with `pool`, and itself: others only where servers are started with clients' parameters.
    #[must_use]
    pub fn family(&self, pool: &Arc<Pool>) -> Vec<Arc<Pool>> {
        if pool.plan().settings.pool_mode != PoolMode::Session {
            return vec![Arc::clone(pool)];
        }
        let family = |pool: &Arc<Pool>| pool.trunk().map_or(pool.id, |trunk| trunk.id);
        let mut pools = self.pools();
        pools.retain(|other| family(other) == family(pool));
        pools
    }

    /// The pool of `database` for a client that has proved to be `user`; in a pool by session, that
    /// of servers which are started with its parameters.
    ///
    /// # Errors
    /// 3D000 if there is no such database.
    pub fn pool(
        &self,
        database: &str,
        user: &str,
        parameters: impl FnOnce(&PoolSettings) -> Result<Vec<(String, String)>, Refusal>,
    ) -> Result<Arc<Pool>, Refusal> {
        let trunk = self.pool_started_with(database, user, StartupParameters::default(), None)?;
        let plan = trunk.plan();
        if plan.settings.pool_mode != PoolMode::Session {
            return Ok(trunk);
        }
        let startup: StartupParameters = parameters(&plan.settings)?.into();
        if startup.is_empty() {
            return Ok(trunk);
        }
        self.pool_started_with(database, user, startup, Some(trunk))
    }

    fn pool_started_with(
        &self,
        database: &str,
        user: &str,
        startup: StartupParameters,
        trunk: Option<Arc<Pool>>,
    ) -> Result<Arc<Pool>, Refusal> {
        loop {
            let current = self.current();
            let Some(configured) = current.config.database(database) else {
                return Err(no_database(database));
            };
            let login = current.config.server_login(configured, user);
            let key = PoolKey {
                database: database.to_owned(),
                user: login.user.to_owned(),
                startup: Arc::clone(&startup),
                replica: None,
            };
            if let Some(pool) = lock(&self.pools).get(&key) {
                return Ok(Arc::clone(pool));
            }
            let plan = self.plan(&current, configured, &key, user, None);
            let mut pools = lock(&self.pools);
            // A reload since then knows nothing of this pool: make its plan again.
            if Arc::ptr_eq(&current, &self.current()) {
                let pool = pools
                    .entry(key)
                    .or_insert_with_key(|key| self.new_pool(key, plan, trunk.clone(), None));
                return Ok(Arc::clone(pool));
            }
        }
    }

    /// A pool, paused if its database is.
    fn new_pool(
        &self,
        key: &PoolKey,
        plan: Plan,
        trunk: Option<Arc<Pool>>,
        home: Option<u64>,
    ) -> Arc<Pool> {
        let pool = Pool::new(key.clone(), plan, Arc::clone(&self.commons), trunk, home);
        if self.gates().is_paused(&key.database) {
            pool.pause();
        }
        pool
    }

    /// The cluster of a pool's database, if it is still in the configuration.
    #[must_use]
    pub fn cluster_of(&self, pool: &Pool) -> Option<Arc<Cluster>> {
        let current = self.current();
        let configured = current.config.database(&pool.key.database)?;
        current.clusters.get(&configured.cluster).cloned()
    }

    /// The pool of replica number `host` of `cluster` for the clients of `home`; nothing if either is
    /// no longer in the configuration.
    #[must_use]
    pub fn replica_pool(
        &self,
        home: &Arc<Pool>,
        cluster: &Arc<Cluster>,
        host: usize,
    ) -> Option<Arc<Pool>> {
        let key = PoolKey {
            replica: Some(cluster.hosts()[host].address.to_string().into()),
            ..home.key.clone()
        };
        if let Some(pool) = lock(&self.pools).get(&key).cloned() {
            pool.learn_from(home);
            return Some(pool);
        }
        let current = self.current();
        let configured = current.config.database(&key.database)?;
        let same = Arc::ptr_eq(current.clusters.get(&configured.cluster)?, cluster);
        let plan = self.plan(&current, configured, &key, &key.user, Some(&home.plan()));
        let mut pools = lock(&self.pools);
        // A reload since then would not have found it.
        if !same || home.is_retired() || !Arc::ptr_eq(&current, &self.current()) {
            return None;
        }
        let pool = pools
            .entry(key)
            .or_insert_with_key(|key| self.new_pool(key, plan, None, Some(home.id)));
        Some(Arc::clone(pool))
    }

    /// The pools on the hosts of `cluster`.
    #[must_use]
    pub fn pools_on(&self, cluster: &Arc<Cluster>) -> Vec<Arc<Pool>> {
        let mut pools = self.pools();
        pools.retain(|pool| {
            let its = self.cluster_of(pool);
            its.is_some_and(|its| Arc::ptr_eq(&its, cluster))
        });
        pools
    }

    /// Does what follows from a change of `cluster` for the pools on it.
    pub fn heed(&self, cluster: &Arc<Cluster>, change: Change) {
        let address = |host: usize| cluster.hosts()[host].address.to_string();
        let concerned = |pool: &Pool| match (change, &pool.key.replica) {
            (Change::Primary { .. }, None) => true,
            (Change::Lost(host) | Change::Found(host) | Change::Promoted(host), Some(replica)) => {
                **replica == *address(host)
            }
            _ => false,
        };
        for pool in self.pools_on(cluster).iter().filter(|pool| concerned(pool)) {
            match change {
                Change::Found(_) => pool.try_again(),
                Change::Primary { old, new } if old == new => pool.try_again(),
                // What idles there is not to be used any more.
                Change::Lost(_) | Change::Promoted(_) | Change::Primary { new: None, .. } => {
                    pool.renew();
                }
                Change::Primary { .. } => {
                    pool.renew();
                    pool.try_again();
                }
            }
        }
    }

    /// What a pool is made of. Credentials that were learnt from clients outlive a reload that
    /// does not change the secret's owner.
    fn plan(
        &self,
        current: &Current,
        configured: &Database,
        key: &PoolKey,
        client_user: &str,
        old: Option<&Plan>,
    ) -> Plan {
        let config = &current.config;
        let settings = config.pool_settings(&key.database, &key.user);
        let login = config.server_login(configured, client_user);
        // Counted also where there is no limit, so that one that a reload sets finds all of them.
        let mut limits = vec![
            self.limit(
                LimitKey::DatabaseServers(key.database.clone()),
                settings.max_db_connections.count(),
            ),
            self.limit(
                LimitKey::UserServers(key.user.clone()),
                settings.max_user_connections.count(),
            ),
        ];
        // The pools of all startup parameters share one size.
        if settings.pool_mode == PoolMode::Session {
            let size = settings.pool_size + settings.reserve_pool_size;
            let key = LimitKey::PoolServers(key.database.clone(), key.user.clone());
            limits.push(self.limit(key, Some(size)));
        }
        let source = config.server_secret_source(configured, client_user);
        let credentials = credentials(login.secret, login.second, source);
        if let Some(old) = old {
            credentials.inherit(&old.recipe.credentials);
        }
        let routes = settings.routing != Routing::Off && settings.pool_mode != PoolMode::Session;
        let cluster = &current.clusters[&configured.cluster];
        let replica = key.replica.as_deref().and_then(|name| cluster.find(name));
        Plan {
            recipe: Arc::new(Recipe {
                locate: match replica {
                    Some(host) => Arc::new(ReplicaOf::new(Arc::clone(cluster), host)),
                    None => Arc::clone(cluster) as Arc<dyn Locate>,
                },
                dbname: configured.dbname(&key.database).to_owned(),
                credentials: Arc::new(credentials),
                catalogue: routes.then(|| {
                    let dbname = configured.dbname(&key.database);
                    self.database(&configured.cluster, dbname)
                }),
                tls: Arc::clone(&current.tls.server),
            }),
            settings: Arc::new(settings),
            limits,
        }
    }

    /// What is known of database `dbname` of a cluster, if anything was asked.
    #[must_use]
    pub fn known_database(&self, cluster: &str, dbname: &str) -> Option<Arc<catalogue::Database>> {
        let databases = lock(&self.databases);
        let key = (cluster.to_owned(), dbname.to_owned());
        databases.get(&key).cloned()
    }

    /// What is known of database `dbname` of a cluster.
    fn database(&self, cluster: &str, dbname: &str) -> Arc<catalogue::Database> {
        let mut databases = lock(&self.databases);
        let key = (cluster.to_owned(), dbname.to_owned());
        Arc::clone(databases.entry(key).or_default())
    }

    fn limit(&self, key: LimitKey, max: Option<usize>) -> Arc<Limit> {
        let mut limits = lock(&self.limits);
        let limit = limits.entry(key).or_insert_with_key(|key| match key {
            LimitKey::PoolServers(..) => Limit::in_turn(max),
            _ => Limit::new(max),
        });
        limit.set_max(max);
        Arc::clone(limit)
    }

    /// The limits on clients of this database and of this user, with their names.
    #[must_use]
    pub fn client_limits(&self, pool: &Pool, user: &str) -> Vec<(&'static str, Arc<Limit>)> {
        let settings = &pool.plan().settings;
        let mut limits = Vec::new();
        if let Some(max) = settings.max_db_client_connections.count() {
            let key = LimitKey::DatabaseClients(pool.key.database.clone());
            limits.push(("max_db_client_connections", self.limit(key, Some(max))));
        }
        if let Some(max) = settings.max_user_client_connections.count() {
            let key = LimitKey::UserClients(user.to_owned());
            limits.push(("max_user_client_connections", self.limit(key, Some(max))));
        }
        limits
    }

    /// Puts `config` in force, and `tls` made of it. Returns the keys that changed but need a restart.
    pub fn reload(&self, config: Config, tls: Tls) -> Vec<&'static str> {
        let old = self.current();
        let restart = old.config.restart_needed(&config);
        self.clients.set_max(config.pooler.max_client_conn.count());
        let bytes = usize::try_from(config.pooler.prepared_statement_memory).unwrap_or(usize::MAX);
        self.commons.interners.set_statement_bytes(bytes);
        let new = Arc::new(build(config, tls, &self.commons, Some(&old)));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        for cluster in old.clusters.values() {
            if !new.clusters.values().any(|c| Arc::ptr_eq(c, cluster)) {
                cluster.retire();
            }
        }
        self.forget(&mut lock(&self.pools), |key, pool| {
            let configured = new.config.database(&key.database);
            let stays = configured.is_some_and(|c| self.replan(&old, &new, c, key, pool));
            if !stays {
                pool.retire();
            }
            !stays
        });
        self.reloads.done.fetch_add(1, Ordering::Relaxed);
        restart
    }

    /// Gives a pool its new plan; false if nobody can ask for it any more.
    fn replan(
        &self,
        old: &Current,
        new: &Current,
        configured: &Database,
        key: &PoolKey,
        pool: &Pool,
    ) -> bool {
        let before = pool.plan();
        let login = new.config.server_login(configured, &key.user);
        if login.user != key.user {
            return false;
        }
        let cluster = &new.clusters[&configured.cluster];
        if key
            .replica
            .as_deref()
            .is_some_and(|replica| cluster.find(replica).is_none())
        {
            return false;
        }
        let plan = self.plan(new, configured, key, &key.user, Some(&before));
        let old_database = old.config.database(&key.database);
        // What was agreed with a server by old rules may not be allowed by the new.
        let same_target = Arc::ptr_eq(&old.tls.server, &new.tls.server)
            && old_database.is_some_and(|d| d.same_target(configured))
            && old.clusters.get(&configured.cluster).is_some_and(|c| {
                new.clusters
                    .get(&configured.cluster)
                    .is_some_and(|n| Arc::ptr_eq(c, n))
            });
        pool.replace_plan(plan, !same_target);
        true
    }

    /// Has the idle servers closed of databases that somebody wants for itself.
    pub fn vacate(&self, now: Instant) {
        for database in self.commons.interners.take_vacated(now) {
            for pool in self.pools() {
                if pool.plan().recipe.dbname.as_bytes() == &*database {
                    tracing::debug!(pool = %pool.key, "idle servers are closed: the database is to be dropped, renamed, moved or copied");
                    pool.renew();
                }
            }
        }
    }

    /// Closes connections for look-ups that nobody uses.
    pub fn tick_lookups(&self, now: Instant) {
        self.current().lookups.values().for_each(|l| l.tick(now));
    }
}

fn no_database(name: &str) -> Refusal {
    Refusal::fatal("3D000", format!("database \"{name}\" does not exist"))
        .hint("Add [databases.NAME] to the pooler's configuration, or \"*\" for any.")
}

/// Clusters that did not change are kept: what was observed of their hosts stays true.
fn build(config: Config, tls: Tls, commons: &Commons, old: Option<&Current>) -> Current {
    let parallel = config.pooler.defaults.server_connect_parallel;
    let datacenter = config.pooler.datacenter.as_str();
    let cluster = |name: &String, new: &crate::config::Cluster| {
        let before = old.and_then(|o| Some((o.config.clusters.get(name)?, o.clusters.get(name)?)));
        match before {
            Some((before, cluster)) if before.hosts == new.hosts && before.monitor_is_same(new) => {
                cluster.set_limits(new, parallel);
                Arc::clone(cluster)
            }
            _ => Cluster::new(new, parallel, datacenter),
        }
    };
    let clusters: HashMap<_, _> = config
        .clusters
        .iter()
        .map(|(name, new)| (name.clone(), cluster(name, new)))
        .collect();
    let lookups = clusters.iter().filter_map(|(name, cluster)| {
        let lookup = lookup_on(cluster, &config, &tls, commons)?;
        Some((name.clone(), lookup))
    });
    Current {
        lookups: lookups.collect(),
        has_verifiers: config.has_verifiers(),
        config,
        tls,
        clusters,
        verifiers: Mutex::default(),
    }
}

/// Who looks up the users of databases on `cluster`. Made anew by each reload, so that RELOAD is also how
/// to have everybody looked up again.
fn lookup_on(
    cluster: &Arc<Cluster>,
    config: &Config,
    tls: &Tls,
    commons: &Commons,
) -> Option<Arc<Lookup>> {
    let (auth, runtime) = (&config.auth, commons.beside.clone()?);
    let user = auth.user.clone()?;
    let recipe = lookup::Recipe {
        cluster: Arc::clone(cluster),
        credentials: credentials_of(config, &user),
        user,
        dbname: auth.dbname.clone(),
        query: auth.query.clone(),
        tls: Arc::clone(&tls.server),
        liveness: liveness(&config.pooler.defaults),
        no_settings: commons.interners.no_settings(),
        cache_time: auth.cache_time,
        timeout: auth.lookup_timeout,
    };
    Some(Lookup::new(recipe, runtime))
}
