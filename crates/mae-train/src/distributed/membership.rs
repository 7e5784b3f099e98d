//! Who a process is among those of its run, as its launcher says in the environment.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use torch_ext::Store;

/// Which of a run's processes this one is, and where they meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The number of this process, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
    /// The number of this process among those on its machine, from 0.
    pub local_rank: usize,
    /// The number of processes on its machine.
    pub local_size: usize,
    /// The name or address of the machine where the processes meet.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// How often the launcher has started the processes anew.
    restarts: u64,
    /// Whether the launcher keeps the store; else the first process does.
    is_store_kept: bool,
    /// Who says all this.
    launcher: Launcher,
}

/// What started the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Launcher {
    /// torchrun, or anything else that sets its variables, `mae-train --nproc` included.
    Torchrun,
    /// Slurm's srun.
    Slurm,
}

/// The ports that Slurm jobs meet at, by the job's number.
const SLURM_PORTS: std::ops::Range<u64> = 20_000..32_000;

impl Membership {
    /// What the environment says; `None` where there is no word of other processes.
    ///
    /// The variables are those of torchrun, `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT` and the like,
    /// or else those of a step of Slurm's `srun` that has several tasks.
    ///
    /// # Errors
    /// If a variable is missing or no number, by its name.
    pub fn from_env() -> Result<Option<Self>> {
        Self::read(&|name| std::env::var(name).ok())
    }

    fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let membership = if get("RANK").is_some() || get("WORLD_SIZE").is_some() {
            if number(get, "WORLD_SIZE")? == Some(1) && get("MASTER_ADDR").is_none() {
                // One process of one has nobody to meet.
                return Ok(None);
            }
            Self::of_torchrun(get)?
        } else if get("SLURM_STEP_ID").is_some() && number(get, "SLURM_STEP_NUM_TASKS")? > Some(1) {
            Self::of_slurm(get)?
        } else {
            return Ok(None);
        };
        let Self { rank, size, .. } = membership;
        ensure!(
            rank < size,
            "process {rank} of {size}: ranks count from 0, so the last is {}",
            size.saturating_sub(1)
        );
        Ok(Some(membership))
    }

    fn of_torchrun(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let needed = |name: &str| {
            number(get, name)?.with_context(|| {
                format!(
                    "the environment has a part of torchrun's variables, but no {name}; \
                     start with torchrun, srun or --nproc, or unset RANK and WORLD_SIZE"
                )
            })
        };
        let rank = needed("RANK")? as usize;
        let size = needed("WORLD_SIZE")? as usize;
        let port = needed("MASTER_PORT")?;
        Ok(Self {
            rank,
            size,
            local_rank: number(get, "LOCAL_RANK")?.unwrap_or(0) as usize,
            local_size: number(get, "LOCAL_WORLD_SIZE")?.unwrap_or(1) as usize,
            host: get("MASTER_ADDR").context("WORLD_SIZE is set, but MASTER_ADDR is not")?,
            port: port_number("MASTER_PORT", port)?,
            restarts: number(get, "TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0),
            is_store_kept: get("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            launcher: Launcher::Torchrun,
        })
    }

    fn of_slurm(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let needed = |name: &str| {
            number(get, name)?.with_context(|| format!("this is a step of Slurm without {name}"))
        };
        let nodes = get("SLURM_STEP_NODELIST")
            .or_else(|| get("SLURM_JOB_NODELIST"))
            .context("this is a step of Slurm without SLURM_STEP_NODELIST")?;
        let host = match get("MASTER_ADDR") {
            Some(host) => host,
            None => first_node(&nodes)
                .with_context(|| format!("SLURM_STEP_NODELIST is {nodes:?}: no node's name"))?,
        };
        let port = match number(get, "MASTER_PORT")? {
            Some(port) => port_number("MASTER_PORT", port)?,
            None => {
                // Of the step, too, so that two steps of one job do not meet each other.
                let number = needed("SLURM_JOB_ID")? + 7 * needed("SLURM_STEP_ID")?;
                (SLURM_PORTS.start + number % (SLURM_PORTS.end - SLURM_PORTS.start)) as u16
            }
        };
        let tasks_per_node = get("SLURM_STEP_TASKS_PER_NODE")
            .or_else(|| get("SLURM_TASKS_PER_NODE"))
            .unwrap_or_default();
        let node = number(get, "SLURM_NODEID")?.unwrap_or(0) as usize;
        Ok(Self {
            rank: needed("SLURM_PROCID")? as usize,
            size: needed("SLURM_STEP_NUM_TASKS")? as usize,
            local_rank: needed("SLURM_LOCALID")? as usize,
            local_size: tasks_of_node(&tasks_per_node, node).unwrap_or(1),
            host,
            port,
            restarts: number(get, "SLURM_RESTART_COUNT")?.unwrap_or(0),
            is_store_kept: false,
            launcher: Launcher::Slurm,
        })
    }

    /// Connects to the store where the processes meet, which the first process keeps unless its launcher does.
    ///
    /// # Errors
    /// If nothing answers there within `timeout`.
    pub fn store(&self, timeout: Duration) -> Result<Store> {
        let Self {
            rank, host, port, ..
        } = self;
        let from = match self.launcher {
            Launcher::Torchrun => "MASTER_ADDR and MASTER_PORT",
            Launcher::Slurm => {
                "the step's first node; MASTER_ADDR and MASTER_PORT would say otherwise"
            }
        };
        if !self.keeps_store() {
            self.wait_for_store(timeout).with_context(|| {
                format!(
                    "process {rank} found nothing at {host}:{port} ({from}) within {} s: is that where process 0 runs, \
                     has it started, and can it be reached?",
                    timeout.as_secs()
                )
            })?;
        }
        // c10d takes up to twice the time that it is given, for it tries once more.
        Store::connect(host, *port, self.keeps_store(), timeout / 2).with_context(|| {
            format!(
                "process {rank} cannot use {host}:{port} ({from}) to meet the others: is it an address of the machine \
                 of process 0, and the port free there?"
            )
        })
    }

    /// Tries until somebody listens at the store's address, at least once.
    fn wait_for_store(&self, timeout: Duration) -> std::io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(200);
        let start = Instant::now();
        let attempt = || -> std::io::Result<()> {
            let addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
            let mut last = std::io::ErrorKind::NotFound.into();
            for address in addresses {
                let left = timeout.saturating_sub(start.elapsed()).max(PAUSE);
                match TcpStream::connect_timeout(&address, left) {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        loop {
            match attempt() {
                Err(_) if start.elapsed() < timeout => std::thread::sleep(PAUSE),
                result => return result,
            }
        }
    }

    /// Whether the store ends with this process.
    pub fn keeps_store(&self) -> bool {
        self.rank == 0 && self.first_keeps_store()
    }

    /// Whether the store ends with the first process.
    pub fn first_keeps_store(&self) -> bool {
        !self.is_store_kept
    }

    /// Whether all processes are on this machine.
    pub fn is_local(&self) -> bool {
        self.local_size == self.size
    }

    /// What comes before a key, so that processes that were started anew do not meet those before.
    pub fn prefix(&self) -> Option<String> {
        // As torch.distributed has it, so that a Python process can join.
        match self.is_store_kept {
            true => Some(format!("/worker/attempt_{}", self.restarts)),
            false => None,
        }
    }
}

fn number(get: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<u64>> {
    match get(name) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("{name} is {text:?}, expected a number from 0"),
        },
    }
}

fn port_number(name: &str, port: u64) -> Result<u16> {
    u16::try_from(port).with_context(|| format!("{name} is {port}, expected a port, at most 65535"))
}

/// The first name of Slurm's short form of several, as `node[003-010,12],login` for `node003`.
fn first_node(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(numbers) = rest.strip_prefix('[') else {
        return (!name.is_empty()).then(|| name.to_string());
    };
    let (numbers, after) = numbers.split_once(']')?;
    let first = numbers.split([',', '-']).next()?;
    // A second list of numbers may follow, as in `rack[1-2]node[1-4]`.
    let after_end = after.find(',').unwrap_or(after.len());
    let rest = first_node(&after[..after_end]).unwrap_or_default();
    Some(format!("{name}{first}{rest}"))
}

/// How many tasks a node has, of Slurm's short form, as `4(x2),3` for 4, 4 and 3.
fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut before = 0;
    for part in list.split(',') {
        let (tasks, times) = match part.split_once("(x") {
            Some((tasks, times)) => (tasks, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        before += times;
        if node < before {
            return tasks.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Membership>> {
        Membership::read(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    const TORCHRUN: [(&str, &str); 8] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node1"),
        ("MASTER_PORT", "29500"),
        ("TORCHELASTIC_RESTART_COUNT", "2"),
        ("TORCHELASTIC_USE_AGENT_STORE", "True"),
    ];

    #[test]
    fn without_variables_a_process_is_alone() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("MASTER_ADDR", "node1")]).unwrap(), None);
        assert_eq!(read(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        // A batch script of Slurm, which is no step, and a step of one task.
        assert_eq!(
            read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]).unwrap(),
            None
        );
        let one = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1")];
        assert_eq!(read(&one).unwrap(), None);
    }

    #[test]
    fn torchrun_says_who_a_process_is() {
        let membership = read(&TORCHRUN).unwrap().unwrap();
        assert_eq!((membership.rank, membership.size), (5, 8));
        assert_eq!((membership.local_rank, membership.local_size), (1, 4));
        assert_eq!(
            (membership.host.as_str(), membership.port),
            ("node1", 29500)
        );
        assert_eq!(membership.prefix().as_deref(), Some("/worker/attempt_2"));
        assert!(!membership.keeps_store() && !membership.is_local());
    }

    #[test]
    fn srun_says_who_a_process_is() {
        let mut variables = vec![
            ("SLURM_STEP_ID", "1"),
            ("SLURM_JOB_ID", "1234567"),
            ("SLURM_STEP_NUM_TASKS", "11"),
            ("SLURM_PROCID", "9"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NODEID", "2"),
            ("SLURM_STEP_NODELIST", "gpu[07-09]"),
            ("SLURM_STEP_TASKS_PER_NODE", "4(x2),3"),
        ];
        let membership = read(&variables).unwrap().unwrap();
        assert_eq!((membership.rank, membership.size), (9, 11));
        assert_eq!((membership.local_rank, membership.local_size), (1, 3));
        assert_eq!(membership.host, "gpu07");
        assert!(SLURM_PORTS.contains(&u64::from(membership.port)));
        variables.extend([("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "4000")]);
        let membership = read(&variables).unwrap().unwrap();
        assert_eq!(
            (membership.host.as_str(), membership.port),
            ("10.0.0.1", 4000)
        );
    }

    #[test]
    fn slurms_short_forms_are_read() {
        for (list, first) in [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("node[003-010,12],login", "node003"),
            ("n[5,7]", "n5"),
            ("rack[1-2]node[04-08]", "rack1node04"),
            ("n[1-2]-ib,x", "n1-ib"),
        ] {
            assert_eq!(first_node(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_node(""), None);
        assert_eq!(tasks_of_node("4(x2),3", 1), Some(4));
        assert_eq!(tasks_of_node("4(x2),3", 3), None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (name, value, expected) in [
            ("WORLD_SIZE", None, "no WORLD_SIZE"),
            ("MASTER_PORT", None, "no MASTER_PORT"),
            ("MASTER_ADDR", None, "MASTER_ADDR is not"),
            ("RANK", Some("8"), "process 8 of 8"),
            ("LOCAL_RANK", Some("one"), "LOCAL_RANK is \"one\""),
            ("MASTER_PORT", Some("70000"), "MASTER_PORT is 70000"),
        ] {
            let others = TORCHRUN.iter().filter(|(key, _)| *key != name);
            let own = value.map(|value| (name, value));
            let variables: Vec<_> = others.copied().chain(own).collect();
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
