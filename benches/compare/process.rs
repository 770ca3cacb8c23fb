//! What a process costs, from the kernel's own books.

use std::collections::HashMap;
use std::fs::{read_dir, read_to_string};
use std::io;

/// Nanoseconds on a processor of every thread of a process, from the scheduler.
pub(crate) struct CpuReading(HashMap<u32, u64>);

impl CpuReading {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut threads = HashMap::new();
        for entry in read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let thread = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            // A thread may end while we look.
            let Ok(text) = read_to_string(path.join("schedstat")) else {
                continue;
            };
            let on_cpu = text
                .split_ascii_whitespace()
                .next()
                .and_then(|field| field.parse().ok());
            if let (Some(thread), Some(on_cpu)) = (thread, on_cpu) {
                threads.insert(thread, on_cpu);
            }
        }
        if threads.is_empty() {
            return Err(io::Error::other(
                "this kernel has no /proc/PID/task/*/schedstat: no CPU times",
            ));
        }
        Ok(Self(threads))
    }

    /// What the process used since an earlier reading, in microseconds, and how many threads ended meanwhile: what those
    /// used is not in it.
    pub(crate) fn since(&self, earlier: &Self) -> (f64, usize) {
        let used: u64 = self
            .0
            .iter()
            .map(|(thread, now)| now - earlier.0.get(thread).unwrap_or(&0))
            .sum();
        let ended = earlier
            .0
            .keys()
            .filter(|thread| !self.0.contains_key(thread))
            .count();
        (used as f64 / 1e3, ended)
    }
}

/// Resident bytes of a process, from its page tables: `status` and `statm` are off by some pages a thread.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kilobytes =
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes
        .map(|kb| kb * 1024)
        .ok_or_else(|| io::Error::other("no Rss in smaps_rollup"))
}

/// The machine, in one line.
pub(crate) fn machine() -> String {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<f64>().ok());
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (gib, kernel) = (memory.unwrap_or_default() / 1024.0 / 1024.0, kernel.trim());
    format!("{cores} cores of {model}, {gib:.0} GiB, Linux {kernel}")
}
