//! What there is to do with processes besides starting them: whose children they are, and how they end.

use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::programs::{command, output, signal};

/// How often a wait looks.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// Waits until `done` says so; `false` if the time was up first.
pub(super) fn wait_until(
    limit: Duration,
    mut done: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(TICK);
    }
}

/// Waits for a child's end; `None` if the time was up first.
pub(super) fn wait_child(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let mut status = None;
    wait_until(limit, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    })?;
    Ok(status)
}

/// The direct children of a process.
pub(super) fn children(pid: u32) -> io::Result<Vec<u32>> {
    if !Path::new("/proc/self/stat").exists() {
        let said = output(command("pgrep").args(["-P", &pid.to_string()])).unwrap_or_default();
        return Ok(said.lines().filter_map(|line| line.parse().ok()).collect());
    }
    let all = std::fs::read_dir("/proc")?.flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(numbers
        .filter(|&child| stat(child).is_some_and(|(_, parent)| parent == pid))
        .collect())
}

/// Kills a process that is our child, and all its children, at once, as the end of their machine would; returns when all
/// are gone.
pub(super) fn kill_family(child: &mut Child) -> io::Result<()> {
    let parent = child.id();
    // Stopped, it has no more children.
    signal("STOP", &[parent])?;
    let mut family = children(parent)?;
    family.push(parent);
    signal("KILL", &family)?;
    child.wait()?;
    family.pop();
    let gone = wait_until(Duration::from_secs(10), || {
        Ok(!family.iter().any(|&pid| is_alive(pid)))
    })?;
    if gone {
        Ok(())
    } else {
        Err(io::Error::other(
            "killed processes are still there after 10 s",
        ))
    }
}

fn is_alive(pid: u32) -> bool {
    if Path::new("/proc/self/stat").exists() {
        return stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'));
    }
    command("sh")
        .args(["-c", "kill -s 0 \"$0\" 2>/dev/null", &pid.to_string()])
        .status()
        .is_ok_and(|s| s.success())
}

/// A process's state and parent, from the fields after its name in parentheses.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
