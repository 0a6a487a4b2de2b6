//! What /proc says of a process: CPU, memory, its busiest thread; and of the machine's UDP sockets.

use std::collections::HashMap;
use std::fs;

/// Clock ticks of /proc in a second: `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux there is.
const TICKS: f64 = 100.0;

/// One look at a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// User + system, in seconds, steps of 10 ms.
    pub cpu_seconds: f64,
    pub resident_kib: u64,
    /// Of each thread: name and CPU seconds.
    pub threads: HashMap<u32, (String, f64)>,
}

impl Sample {
    /// None when there is no such process (any more), or no /proc.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let id = entry.file_name().to_string_lossy().parse().ok();
            let stat = fs::read_to_string(entry.path().join("stat")).ok();
            if let Some((id, thread)) = id.zip(stat.as_deref().and_then(name_and_cpu)) {
                threads.insert(id, thread);
            }
        }
        Some(Self {
            cpu_seconds: name_and_cpu(&stat)?.1,
            resident_kib: resident(&status)?,
            threads,
        })
    }

    /// The thread that used most CPU since `before`: its name and the seconds.
    pub fn busiest_since(&self, before: &Self) -> Option<(String, f64)> {
        self.threads
            .iter()
            .map(|(id, (name, cpu))| {
                let earlier = before.threads.get(id).map_or(0.0, |(_, cpu)| *cpu);
                (name.clone(), cpu - earlier)
            })
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// proc(5): the name is in brackets and may hold anything; utime and stime are the 14th and 15th field.
fn name_and_cpu(stat: &str) -> Option<(String, f64)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let name = before.split_once('(')?.1;
    let mut ticks = after.split(' ').skip(11).map(str::parse::<u64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((name.to_owned(), (user + system) as f64 / TICKS))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Datagrams that this machine's sockets had no room for since it started: a loss that is not the server's.
pub fn receive_overruns() -> u64 {
    overruns(&fs::read_to_string("/proc/net/snmp").unwrap_or_default()).unwrap_or(0)
}

fn overruns(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "RcvbufErrors")?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let stat =
            "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 200 18446744073709551615";
        assert_eq!(name_and_cpu(stat), Some(("a) b (c".to_owned(), 3.0)));
        assert_eq!(name_and_cpu("42 (x) S 1 2"), None);
        assert_eq!(name_and_cpu(""), None);
    }

    #[test]
    fn memory_and_overruns_are_found_by_name() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   20480 kB\nVmData: 1 kB\n"), Some(20_480));
        assert_eq!(resident("Name: x\n"), None);
        let snmp = "Tcp: A\nTcp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 9 1 2 8 7\n";
        assert_eq!(overruns(snmp), Some(7));
        assert_eq!(overruns("Udp: A\n"), None);
    }

    #[test]
    fn this_process_is_there_and_the_next_is_not() {
        let sample = Sample::of(std::process::id()).expect("itself");
        assert!(sample.resident_kib > 0);
        assert!(sample.busiest_since(&sample).is_some());
        assert_eq!(Sample::of(u32::MAX), None);
    }
}
