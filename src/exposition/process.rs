//! What the system knows of this process: the numbers that every Prometheus client library gives,
//! under the names that dashboards know them by.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks a second of the times in `/proc`: fixed by Linux's interface to programs, whatever the
/// kernel itself ticks at.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
    /// Since 1970.
    pub(super) started_seconds: f64,
}

impl Process {
    /// `None` where there is no `/proc`.
    pub(super) fn look() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let times = Times::parse(&stat)?;
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
        let age = Duration::try_from_secs_f64(uptime - times.started / TICKS_PER_SECOND);
        let started = SystemTime::now().checked_sub(age.unwrap_or_default())?;
        let fds = std::fs::read_dir(Path::new("/proc/self/fd")).ok()?.count();
        let (max_fds, _) = rlimit::getrlimit(rlimit::Resource::NOFILE).ok()?;
        Some(Self {
            cpu_seconds: times.used / TICKS_PER_SECOND,
            resident_bytes: field(&status, "VmRSS:")? * 1024,
            virtual_bytes: field(&status, "VmSize:")? * 1024,
            threads: field(&status, "Threads:")?,
            // One of them is the look itself.
            open_fds: (fds as u64).saturating_sub(1),
            max_fds,
            started_seconds: started.duration_since(UNIX_EPOCH).ok()?.as_secs_f64(),
        })
    }
}

/// Of `/proc/self/stat`, in ticks.
#[derive(Debug, PartialEq)]
struct Times {
    /// In user and in system mode.
    used: f64,
    /// After the system's start.
    started: f64,
}

impl Times {
    /// The second field is the program's name in parentheses and may itself have both.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        // proc_pid_stat(5) counts from 1; `rest` begins with field 3.
        let field = |n: usize| rest.split_ascii_whitespace().nth(n - 3)?.parse().ok();
        let (user, system): (f64, f64) = (field(14)?, field(15)?);
        Some(Self {
            used: user + system,
            started: field(22)?,
        })
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_program_name() {
        let stat = "7 (a b) c)) S 1 7 7 0 -1 4194560 900 0 1 0 250 50 0 0 20 0 4 0 1234 5 6";
        let times = Times::parse(stat).expect("as in proc_pid_stat(5)");
        assert_eq!(
            times,
            Times {
                used: 300.0,
                started: 1234.0
            }
        );
        assert_eq!(Times::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_plausible() {
        let Some(seen) = Process::look() else {
            return;
        };
        assert!(seen.resident_bytes > 100_000 && seen.resident_bytes < seen.virtual_bytes);
        assert!(seen.open_fds > 2 && seen.open_fds <= seen.max_fds);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after");
        let age = now.as_secs_f64() - seen.started_seconds;
        assert!((-1.0..86_400.0).contains(&age), "{age}");
    }
}
