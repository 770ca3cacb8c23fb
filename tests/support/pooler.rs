//! The real pooler, as a process that ends with the test.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pooler::demo::postgres::Postgres;
use pooler::demo::{Leashed, free_port, make_dir};

use super::{Wire, wait_until};

/// How often a port that somebody else was faster to take is replaced.
const TRIES_MAX: u32 = 5;

/// What the pooler is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    listen: Vec<String>,
    hosts: Vec<String>,
    cluster: Vec<String>,
    pooler: Vec<String>,
    auth: Vec<String>,
    log_level: String,
    more: String,
    database: Vec<String>,
    environment: Vec<(String, String)>,
    files: Option<u32>,
}

impl Builder {
    /// A host of the only cluster, by its port on this machine; more for more.
    pub fn host(mut self, port: u16) -> Self {
        self.hosts
            .push(format!("{{ host = \"127.0.0.1\", port = {port} }}"));
        self
    }

    /// A host of the only cluster that stands in a datacenter; more for more.
    pub fn host_in(mut self, datacenter: &str, port: u16) -> Self {
        self.hosts.push(format!(
            "{{ host = \"127.0.0.1\", port = {port}, datacenter = \"{datacenter}\" }}"
        ));
        self
    }

    /// A host of the only cluster, by the directory of its socket.
    pub fn unix_host(mut self, directory: &Path, port: u16) -> Self {
        let directory = directory.display();
        self.hosts
            .push(format!("{{ host = \"{directory}\", port = {port} }}"));
        self
    }

    /// One more address to listen on.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen.push(address.to_owned());
        self
    }

    /// A line of `[clusters.main]`.
    pub fn cluster(mut self, line: &str) -> Self {
        put(&mut self.cluster, line);
        self
    }

    /// A line of `[pooler]`, in place of the default one of that key: `pool_size = 2`.
    pub fn set(mut self, line: &str) -> Self {
        put(&mut self.pooler, line);
        self
    }

    /// A line of `[auth]`, in place of the default `type = "trust"`.
    pub fn auth(mut self, line: &str) -> Self {
        put(&mut self.auth, line);
        self
    }

    /// A line of `[databases."*"]`.
    pub fn database(mut self, line: &str) -> Self {
        put(&mut self.database, line);
        self
    }

    /// Further sections, as they are.
    pub fn section(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self.more.push('\n');
        self
    }

    /// `[log] level`, "info" unless set.
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// A variable of the process's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The limit on open files of the process.
    pub fn files(mut self, limit: u32) -> Self {
        self.files = Some(limit);
        self
    }

    /// The file's text for a pooler that listens on `port`.
    pub fn toml(&self, port: u16) -> String {
        let mut text = String::new();
        let mut listen = vec![format!("127.0.0.1:{port}")];
        listen.extend_from_slice(&self.listen);
        writeln!(text, "[pooler]\nlisten = {listen:?}").expect("a string");
        for line in &self.pooler {
            writeln!(text, "{line}").expect("a string");
        }
        writeln!(
            text,
            "[clusters.main]\nhosts = [{}]\n{}\n[databases.\"*\"]\ncluster = \"main\"\n{}\n[auth]\n{}\n[log]\nlevel = \"{}\"\n{}",
            self.hosts.join(", "),
            self.cluster.join("\n"),
            self.database.join("\n"),
            self.auth.join("\n"),
            self.log_level,
            self.more
        )
        .expect("a string");
        if !self.more.contains("[tls.server]") {
            // Scripted servers know no SSLRequest.
            text.push_str("[tls.server]\nmode = \"disable\"\n");
        }
        if !self.more.contains("[metrics]") {
            // The default port is one for all poolers of this machine.
            text.push_str("[metrics]\nlisten = \"\"\n");
        }
        text
    }

    /// Starts it; returns when it accepts connections.
    ///
    /// # Panics
    /// If it does not, with its log.
    pub fn start(self) -> Pooler {
        for _ in 0..TRIES_MAX {
            match Pooler::start(&self) {
                Ok(pooler) => return pooler,
                Err(log) if log.contains("in use") => {}
                Err(log) => panic!("the pooler did not start: {log}"),
            }
        }
        panic!("no port stayed free");
    }
}

fn put(lines: &mut Vec<String>, line: &str) {
    let key = |l: &str| l.split('=').next().unwrap_or_default().trim().to_owned();
    let new = key(line);
    lines.retain(|l| key(l) != new);
    lines.push(line.to_owned());
}

/// Starts the program with this configuration in a directory of the test's own, for tests that start and end it themselves.
/// What it says goes nowhere.
pub fn start_program(dir: &Path, toml: &str) -> Leashed {
    let config = dir.join("pooler.toml");
    std::fs::write(&config, toml).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    command.arg("run").arg(&config);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    Leashed::start(&mut command).expect("the pooler")
}

/// A running pooler. It ends with this value, and with this process at the latest.
pub struct Pooler {
    process: Mutex<Leashed>,
    pid: u32,
    port: u16,
    dir: PathBuf,
    builder: Builder,
}

impl Pooler {
    /// One that trusts everyone and lets five server connections a pool go to no host yet.
    pub fn builder() -> Builder {
        let line = |l: &str| l.to_owned();
        // For a run of the same tests with the sends one by one: POOLER_TEST_BATCH_SENDS=false.
        let batch_sends = std::env::var("POOLER_TEST_BATCH_SENDS");
        let batch_sends = batch_sends.as_deref().unwrap_or("true");
        Builder {
            listen: Vec::new(),
            hosts: Vec::new(),
            cluster: Vec::new(),
            pooler: vec![
                format!("batch_sends = {batch_sends}"),
                line("workers = 2"),
                line("pool_size = 5"),
                line("server_login_retry = \"100ms\""),
                // Scripted servers know no catalogue.
                line("inspect_functions = false"),
            ],
            auth: vec![line("type = \"trust\"")],
            log_level: line("info"),
            more: String::new(),
            database: Vec::new(),
            environment: Vec::new(),
            files: None,
        }
    }

    /// As [`Pooler::builder`], before a PostgreSQL.
    pub fn before(postgres: &Postgres) -> Builder {
        let builder = Self::builder().set("inspect_functions = true");
        builder.host(postgres.port())
    }

    fn start(builder: &Builder) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = make_dir(&format!("pooler{number}")).expect("a directory");
        let port = free_port().expect("a free port");
        let (config, log) = (dir.join("pooler.toml"), dir.join("log"));
        std::fs::write(&config, builder.toml(port)).expect("a file");
        let log = File::create(log).expect("a file");
        let limit = builder
            .files
            .map_or(String::new(), |n| format!("ulimit -n {n}; "));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limit}exec \"$@\""), "sh"]);
        command.args([env!("CARGO_BIN_EXE_pooler"), "run"]);
        command.arg(&config).current_dir(&dir);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log);
        command.envs(builder.environment.iter().map(|(n, v)| (n, v)));
        let process = Leashed::start(&mut command).expect("the pooler");
        let pooler = Self {
            pid: process.pid(),
            process: Mutex::new(process),
            port,
            dir,
            builder: builder.clone(),
        };
        wait_until("the pooler accepts", || {
            pooler.ended().is_some() || Wire::try_connect(port).is_ok()
        });
        match pooler.ended() {
            Some(_) => Err(pooler.log()),
            None => Ok(pooler),
        }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its directory, which holds `pooler.toml` and its log.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// A session without a password.
    pub fn login(&self, user: &str, database: &str) -> Wire {
        Wire::login(self.port, user, database)
    }

    /// Sends `TERM`, `INT`, `HUP`, ...
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.pid);
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.expect("a shell").success(), "{kill}");
    }

    /// Everything that it has logged. What it tells a client may be there before the line that was logged ahead of it,
    /// because lines are written by a thread of their own: that one is waited for, where the system says what it does.
    pub fn log(&self) -> String {
        if let Some(thread) = self.thread("log") {
            wait_until("what is logged is written", || !is_at_work(&thread));
        }
        std::fs::read_to_string(self.dir.join("log")).expect("a log")
    }

    /// Where the system shows one of its threads, by the thread's name.
    pub fn thread(&self, name: &str) -> Option<PathBuf> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
        let mut paths = threads.flatten().map(|entry| entry.path());
        paths.find(|path| {
            let its = std::fs::read_to_string(path.join("comm"));
            its.is_ok_and(|its| its.trim_end() == name)
        })
    }

    /// Writes another configuration and asks it to reload; `change` starts from the present one.
    pub fn reload(&mut self, change: impl FnOnce(Builder) -> Builder) {
        self.builder = change(self.builder.clone());
        let text = self.builder.toml(self.port);
        self.reload_text(&text);
    }

    /// As [`Pooler::reload`], with any text.
    pub fn reload_text(&self, toml: &str) {
        std::fs::write(self.dir.join("pooler.toml"), toml).expect("a file");
        self.signal("HUP");
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().expect("no panic with it");
        process.ended().expect("a child's state")
    }

    /// Waits for its end.
    pub fn wait_exit(&self) -> ExitStatus {
        let mut status = None;
        wait_until("the pooler ends", || {
            status = self.ended();
            status.is_some()
        });
        status.expect("just seen")
    }

    /// Resident memory in kB, now.
    pub fn rss_kb(&self) -> u64 {
        let mut ps = Command::new("ps");
        let out = ps
            .args(["-o", "rss=", "-p", &self.pid.to_string()])
            .output();
        let text = String::from_utf8(out.expect("ps").stdout).expect("a number");
        text.trim().parse().expect("a number")
    }

    /// The most that resident memory was since the start, or since [`Pooler::forget_peak`], in kB; where the system does not
    /// say, what it is now.
    pub fn peak_rss_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let peak = status.ok().and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        });
        peak.unwrap_or_else(|| self.rss_kb())
    }

    /// Lets [`Pooler::peak_rss_kb`] begin anew, where the system can.
    pub fn forget_peak(&self) {
        // Not possible everywhere: the peak is then that of the whole life, which is only stricter.
        drop(std::fs::write(
            format!("/proc/{}/clear_refs", self.pid),
            "5",
        ));
    }

    /// How many files and sockets it has open, where the system says.
    pub fn open_files(&self) -> Option<usize> {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?;
        Some(all.count())
    }

    /// Seconds of processor time used so far, where the system says, in hundredths.
    pub fn cpu_centiseconds(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let fields = stat.rsplit_once(')')?.1;
        let mut times = fields.split_whitespace().skip(11);
        let user: u64 = times.next()?.parse().ok()?;
        let system: u64 = times.next()?.parse().ok()?;
        Some(user + system)
    }

    /// It is there, and a new login and a query take under 5 s.
    ///
    /// # Panics
    /// If not, with the log.
    pub fn assert_serves(&self, user: &str, database: &str) {
        assert!(
            self.ended().is_none(),
            "the pooler has ended:\n{}",
            self.log()
        );
        let began = Instant::now();
        let mut wire = self.login(user, database);
        assert_eq!(wire.one("SELECT 1"), "1");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "a login took {took:?}");
        wire.leave();
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Whether a thread runs, or would if it were its turn.
fn is_at_work(thread: &Path) -> bool {
    let stat = std::fs::read_to_string(thread.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    state.starts_with(['R', 'D'])
}

impl Drop for Pooler {
    /// A test that fails shows what the pooler had to say.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ended = self.ended();
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("the pooler on port {} ({ended:?}):\n{log}", self.port);
        }
    }
}
