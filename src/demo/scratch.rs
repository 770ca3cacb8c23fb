//! The directory that holds everything this process makes, and the guard that removes it.
//!
//! One directory a process, made with the first cluster. The invariant: whatever becomes of this process, the servers in the
//! directory stop and the directory goes. `Drop` cannot promise that (statics are not dropped, SIGKILL drops nothing), so a
//! small shell waits on a pipe whose other end only this process holds, and cleans up when it closes. The shell has its own
//! process group, so Ctrl-C does not reach it, and no output, so that it keeps nobody's pipe open.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::account::Account;
use super::programs::{command, output, server_command};

/// Waits for the end of its input, then stops the servers under `$1` (only a process that works in its own data directory
/// there is taken for one) and removes `$1`. Something may still be writing: hence several tries.
const GUARD: &str = r#"
trap '' HUP INT TERM QUIT PIPE
while read -r _; do :; done
for dir in "$1"/*/; do
    dir=${dir%/}
    read -r pid 2>/dev/null <"$dir/postmaster.pid" || continue
    [ ! -d /proc/self ] || [ "$(readlink "/proc/$pid/cwd")" = "$dir" ] || continue
    kill -s QUIT "$pid" && kill -s CONT "$pid"
    n=0
    while [ -f "$dir/postmaster.pid" ] && kill -s 0 "$pid" && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
    [ -f "$dir/postmaster.pid" ] && kill -s KILL "$pid"
done 2>/dev/null
for n in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$1" && [ ! -e "$1" ] && exit 0
    sleep 0.2
done
"#;

/// Longest path of the directory: a Unix socket's path below it must stay within 103 bytes.
const PATH_LEN_MAX: usize = 70;

/// The process's directory, its account and its guard.
pub(super) struct Scratch {
    root: PathBuf,
    pub(super) account: Option<Account>,
    guard: Mutex<Option<Child>>,
    /// Whether `template` holds an initialised cluster.
    template: Mutex<bool>,
    next: AtomicU32,
}

/// The directory of this process, while there is one.
static CURRENT: Mutex<Option<Arc<Scratch>>> = Mutex::new(None);

impl Scratch {
    /// This process's directory, made now if there is none.
    pub(super) fn current() -> io::Result<Arc<Self>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scratch) = current.as_ref() {
            return Ok(Arc::clone(scratch));
        }
        let made = Arc::new(Self::create()?);
        *current = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Takes the directory away from this process and removes it, with every server in it; returns when it is gone.
    pub(super) fn remove() {
        let taken = CURRENT
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(scratch) = taken {
            scratch.release_guard();
        }
    }

    /// A path in the directory that nothing has yet, and its number.
    pub(super) fn fresh_path(&self) -> (u32, PathBuf) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, self.root.join(number.to_string()))
    }

    /// A directory of this name, which the guard can remove.
    pub(super) fn make_dir(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.root.join(name);
        DirBuilder::new().mode(0o755).create(&dir)?;
        self.account.map_or(Ok(()), |account| account.own(&dir))?;
        Ok(dir)
    }

    /// The directory itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a cluster's data directory: a copy of the one that `initdb` made once, or its own if it asks for options.
    pub(super) fn init_cluster(&self, dir: &Path, args: &[String]) -> io::Result<()> {
        if !args.is_empty() {
            return self.initdb(dir, args);
        }
        let template = self.root.join("template");
        let mut ready = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        if !*ready {
            self.initdb(&template, &[])?;
            *ready = true;
        }
        drop(ready);
        let mut copy = command("cp");
        copy.arg("-a")
            .arg(&template)
            .arg(dir)
            .current_dir(&self.root);
        if let Some(account) = self.account {
            account.run(&mut copy);
        }
        output(&mut copy).map(drop)
    }

    fn initdb(&self, dir: &Path, args: &[String]) -> io::Result<()> {
        let mut initdb = server_command("initdb", self.account, &self.root)?;
        initdb
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(dir)
            .args(args);
        output(&mut initdb).map(drop)
    }

    fn create() -> io::Result<Self> {
        let account = Account::for_servers()?;
        let wanted = std::env::temp_dir();
        let long = wanted.as_os_str().len() > PATH_LEN_MAX - 24;
        let first = if long {
            None
        } else {
            Self::create_in(&wanted, account).ok()
        };
        let (root, guard) = match first {
            Some(made) => made,
            None => Self::create_in(Path::new("/tmp"), account)?,
        };
        let (guard, next) = (Mutex::new(Some(guard)), AtomicU32::new(1));
        Ok(Self {
            root,
            account,
            guard,
            template: Mutex::new(false),
            next,
        })
    }

    /// The directory and its guard, in a parent that the account may be unable to enter: that is the error.
    fn create_in(parent: &Path, account: Option<Account>) -> io::Result<(PathBuf, Child)> {
        // Without links: the guard compares it with what the system says of a process.
        let root = parent
            .canonicalize()?
            .join(format!("pooler-pg-{:08x}", rand::random::<u32>()));
        DirBuilder::new().mode(0o755).create(&root)?;
        let started = start_guard(&root, account);
        if started.is_err() {
            std::fs::remove_dir(&root)?;
        }
        started.map(|guard| (root, guard))
    }

    /// Closes the guard's pipe and waits until it has done its work.
    fn release_guard(&self) {
        let guard = self
            .guard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut guard) = guard {
            drop(guard.stdin.take());
            // The guard needs nobody: if it cannot be waited for it still does its work.
            drop(guard.wait());
        }
    }
}

fn start_guard(root: &Path, account: Option<Account>) -> io::Result<Child> {
    let mut probe = command("sh");
    probe.args(["-c", "test -w ."]).current_dir(root);
    let mut guard = command("sh");
    guard
        .args(["-c", GUARD, "pooler-cleanup"])
        .arg(root)
        .current_dir("/")
        .process_group(0);
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(account) = account {
        account.own(root)?;
        account.run(&mut probe);
        account.run(&mut guard);
    }
    output(&mut probe)?;
    guard.spawn()
}
