//! The processes of a run: who they are, what they agree on, and what happens when one is gone.
//!
//! All processes make the same updates of the same weights: each computes the gradients of its part of a batch, and
//! c10d, PyTorch's own engine, averages them. A [`World`] of one process, which is what there is without a launcher,
//! touches nothing of it.

mod launch;
mod membership;
mod watch;

use std::cell::Cell;
use std::net::{IpAddr, UdpSocket};
use std::num::NonZero;
use std::rc::Rc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mae_data::Shard;
use tch::{Device, Tensor};
use torch_ext::{Address, Backend, ProcessGroup, ReduceOp, Reducer, Store};

use crate::error::Lost;

pub use launch::{end_with_launcher, launch};
pub use membership::Membership;
use watch::{ASKING, Missing, Watch};

/// The processes of a run, as one of them sees them.
#[derive(Debug)]
pub struct World {
    others: Option<Others>,
}

#[derive(Debug)]
struct Others {
    membership: Membership,
    backend: Backend,
    group: ProcessGroup,
    /// Of this start of the processes alone.
    store: Store,
    /// Of all starts, if the launcher keeps it.
    lasting: Store,
    watch: Watch,
    /// Keys of the store that were used so far, the same in all processes.
    keys: Cell<u64>,
    timeout: Duration,
}

impl World {
    /// A process without others.
    pub fn alone() -> Self {
        Self { others: None }
    }

    /// Meets the other processes that the environment tells of, if it does.
    ///
    /// `timeout` is how long one process waits for another, here and in every collective call.
    ///
    /// # Errors
    /// If a variable of the environment is wrong, or a process does not come in time, by its number.
    pub fn join(timeout: Duration) -> Result<Self> {
        match Membership::from_env()? {
            Some(membership) => Self::meet(membership, timeout),
            None => Ok(Self::alone()),
        }
    }

    fn meet(membership: Membership, timeout: Duration) -> Result<Self> {
        let start = Instant::now();
        let lasting = membership.store(timeout)?;
        let store = match membership.prefix() {
            Some(prefix) => lasting.with_prefix(&prefix)?,
            None => lasting.connection()?,
        };
        let Membership { rank, size, .. } = membership;
        store.set(&format!("here/{rank}"), size.to_string().as_bytes())?;
        let left = || timeout.saturating_sub(start.elapsed());
        let late: Vec<String> = (0..size)
            .filter(|other| {
                let key = format!("here/{other}");
                store.wait(&key, left()).is_err() && !store.has(&key).unwrap_or(true)
            })
            .map(|other| other.to_string())
            .collect();
        for other in 0..size {
            let key = format!("here/{other}");
            let is_there = store.has(&key).with_context(|| {
                format!("process {rank} met the others, but process 0 has ended meanwhile")
            })?;
            let theirs = match is_there {
                true => String::from_utf8(store.get(&key)?)?,
                false => continue,
            };
            if theirs != size.to_string() {
                // So that the others can read it, too, before the store ends.
                std::thread::sleep(Duration::from_secs(2));
                bail!(
                    "process {rank} was told of {size} processes, but process {other} of {theirs}: start all with the \
                     same WORLD_SIZE"
                );
            }
        }
        ensure!(
            late.is_empty(),
            "process {rank} waited {} s, but of {size} processes these did not come: {}; start them, or lower the \
             number of processes; --peer-timeout gives them more time",
            timeout.as_secs(),
            late.join(", ")
        );
        let watch = Watch::start(&store, rank, size, membership.first_keeps_store())?;
        let backend = match Backend::Nccl.is_built_in()
            && torch_ext::load_cuda()?
            && tch::Cuda::device_count() > 0
        {
            true => Backend::Nccl,
            false => Backend::Gloo,
        };
        let address = address(&membership)?;
        // Less, so that there is time to find out who is gone.
        const MARGIN: Duration = Duration::from_secs(1);
        let patience = timeout.saturating_sub(ASKING + MARGIN).max(timeout / 2);
        let group = ProcessGroup::new(backend, &store, rank, size, &address, patience)
            .map_err(Lost::from)
            .with_context(|| {
                format!(
                    "process {rank}, which listens at {}, and the others could not connect to each other; \
                     GLOO_SOCKET_IFNAME names the network interface to use",
                    match &address {
                        Address::Host(name) | Address::Interface(name) => name,
                    }
                )
            })?;
        log::debug!(
            "process {rank} of {size} met the others after {:?}",
            start.elapsed()
        );
        Ok(Self {
            others: Some(Others {
                membership,
                backend,
                group,
                store,
                lasting,
                watch,
                keys: Cell::new(0),
                timeout,
            }),
        })
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.others
            .as_ref()
            .map_or(0, |others| others.membership.rank)
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.others
            .as_ref()
            .map_or(1, |others| others.membership.size)
    }

    /// Whether this is the process that writes and speaks.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// This process's part of each batch.
    pub fn shard(&self) -> Shard {
        Shard {
            rank: self.rank(),
            size: self.size(),
        }
    }

    /// Threads for this process where it is not said how many: the machine's cores, shared with its others there.
    /// 0 leaves it to the caller.
    pub fn workers(&self, asked: usize) -> usize {
        match &self.others {
            Some(others) if asked == 0 => {
                let cores = available_parallelism().map_or(1, NonZero::get);
                (cores / others.membership.local_size).max(1)
            }
            _ => asked,
        }
    }

    /// The device of this process, where all were told to use `device`: on CUDA, each of a machine one of its own.
    ///
    /// # Errors
    /// If there is no such device, or the program was built without NCCL.
    pub fn device(&self, device: Device) -> Result<Device> {
        let (Some(others), Device::Cuda(_)) = (&self.others, device) else {
            return Ok(device);
        };
        ensure!(
            others.backend == Backend::Nccl,
            "several processes on CUDA need NCCL, which this program was built without: build it with \
             `--features nccl`, or set run.device=cpu"
        );
        let Membership {
            local_rank,
            local_size,
            ..
        } = others.membership;
        let devices = tch::Cuda::device_count();
        ensure!(
            (local_rank as i64) < devices,
            "{local_size} processes on this machine, but {devices} CUDA devices answer: start one process a device"
        );
        Ok(Device::Cuda(local_rank))
    }

    /// What averages the gradients of `params`; `None` where there is nobody to average with.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn reducer(&self, params: &[Tensor]) -> Result<Option<Reducer>> {
        match &self.others {
            Some(others) => Ok(Some(Reducer::new(&others.group, params)?)),
            None => Ok(None),
        }
    }

    /// Replaces `tensor` by the sum of all processes'.
    ///
    /// # Errors
    /// If another process is gone.
    pub fn sum(&self, tensor: &Tensor) -> Result<()> {
        self.all_reduce(tensor, ReduceOp::Sum)
    }

    /// The sums of numbers of all processes.
    ///
    /// # Errors
    /// If another process is gone.
    pub fn sums<const N: usize>(&self, numbers: [i64; N]) -> Result<[i64; N]> {
        if self.others.is_none() {
            return Ok(numbers);
        }
        let sums = Tensor::from_slice(&numbers);
        self.sum(&sums)?;
        Ok(Vec::<i64>::try_from(sums)?.try_into().expect("N numbers"))
    }

    /// The numbers of all processes, those of one after those of the other.
    ///
    /// # Errors
    /// If another process is gone.
    pub fn concat(&self, numbers: &[i64]) -> Result<Vec<i64>> {
        let mut counts = vec![0i64; self.size()];
        counts[self.rank()] = numbers.len() as i64;
        let counts = Tensor::from_slice(&counts);
        self.sum(&counts)?;
        let counts = Vec::<i64>::try_from(counts)?;
        if counts.iter().all(|&count| count == 0) {
            return Ok(Vec::new());
        }
        let before = counts[..self.rank()].iter().sum::<i64>() as usize;
        // Each place is one process's: the sum with the others' zeros is its number.
        let mut all = vec![0i64; counts.iter().sum::<i64>() as usize];
        all[before..before + numbers.len()].copy_from_slice(numbers);
        let all = Tensor::from_slice(&all);
        self.sum(&all)?;
        Ok(Vec::<i64>::try_from(all)?)
    }

    /// The largest of all processes' numbers.
    ///
    /// # Errors
    /// If another process is gone.
    pub fn max(&self, number: i64) -> Result<i64> {
        if self.others.is_none() {
            return Ok(number);
        }
        let max = Tensor::from(number);
        self.all_reduce(&max, ReduceOp::Max)?;
        Ok(max.int64_value(&[]))
    }

    fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<()> {
        match &self.others {
            Some(others) => Ok(others.group.all_reduce(tensor, op).map_err(Lost::from)?),
            None => Ok(()),
        }
    }

    /// Replaces `tensors` by those of the first process.
    ///
    /// # Errors
    /// If another process is gone, or has tensors of another shape.
    pub fn copy_from_first(&self, tensors: &[Tensor]) -> Result<()> {
        match &self.others {
            // One call for each kind of number, for they travel together.
            Some(others) => {
                let mut kinds: Vec<_> = tensors.iter().map(Tensor::kind).collect();
                kinds.sort_by_key(|kind| *kind as i32);
                kinds.dedup();
                for kind in kinds {
                    let alike = tensors.iter().filter(|tensor| tensor.kind() == kind);
                    let alike: Vec<Tensor> = alike.map(Tensor::shallow_clone).collect();
                    others.group.broadcast(&alike).map_err(Lost::from)?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What the first process knows.
    ///
    /// # Errors
    /// Those of `tell`, which the first process alone calls, or if the first process is gone.
    pub fn from_first(&self, tell: impl FnOnce() -> Result<String>) -> Result<String> {
        let Some(others) = &self.others else {
            return tell();
        };
        let key = others.new_key();
        if self.is_first() {
            let text = tell()?;
            others
                .store
                .set(&key, text.as_bytes())
                .map_err(Lost::from)?;
            return Ok(text);
        }
        Ok(String::from_utf8(
            others.watch.wait_for(&key, others.timeout)?,
        )?)
    }

    /// Keeps what the first process must know if the processes are started anew, where the launcher can.
    ///
    /// # Errors
    /// If the launcher is gone.
    pub fn remember(&self, name: &str, text: &str) -> Result<()> {
        if let (Some(others), true) = (&self.others, self.is_first()) {
            let key = format!("lasting/{name}");
            others
                .lasting
                .set(&key, text.as_bytes())
                .map_err(Lost::from)?;
        }
        Ok(())
    }

    /// What the first process [remembered](Self::remember) before the processes were started anew.
    ///
    /// # Errors
    /// If the launcher is gone.
    pub fn recall(&self, name: &str) -> Result<Option<String>> {
        let Some(others) = &self.others else {
            return Ok(None);
        };
        let key = format!("lasting/{name}");
        match others.lasting.has(&key).map_err(Lost::from)? {
            true => {
                let text = others.lasting.get(&key).map_err(Lost::from)?;
                Ok(Some(String::from_utf8(text)?))
            }
            false => Ok(None),
        }
    }

    /// Makes sure that all processes have the same `text`, line by line, which `what` names.
    ///
    /// # Errors
    /// On every process, which one differs from the first and in which lines.
    pub fn agree(&self, what: &str, text: &str) -> Result<()> {
        const SHOWN: usize = 3;
        let Some(others) = &self.others else {
            return Ok(());
        };
        let first = self.from_first(|| Ok(text.to_string()))?;
        let differences: Vec<String> = first
            .lines()
            .zip(text.lines())
            .filter(|(first, own)| first != own)
            .map(|(first, own)| format!("{own} (process 0 has {first})"))
            .collect();
        let words = match first == text {
            true => String::new(),
            false if differences.is_empty() => "it is longer or shorter".into(),
            false if differences.len() > SHOWN => format!(
                "{}; and {} more",
                differences[..SHOWN].join("; "),
                differences.len() - SHOWN
            ),
            false => differences.join("; "),
        };
        let base = others.new_key();
        let key = |rank: usize| format!("{base}/{rank}");
        others
            .store
            .set(&key(self.rank()), words.as_bytes())
            .map_err(Lost::from)?;
        for rank in 1..self.size() {
            let words = others.watch.wait_for(&key(rank), others.timeout)?;
            let words = String::from_utf8(words)?;
            ensure!(
                words.is_empty(),
                "all processes need the same {what}, but process {rank} has: {words}"
            );
        }
        Ok(())
    }

    /// What a call of a [`Reducer`] says, so that [`end`](Self::end) looks for who is gone.
    ///
    /// # Errors
    /// That of `result`.
    pub fn check<T>(&self, result: torch_ext::Result<T>) -> Result<T> {
        match self.others {
            Some(_) => Ok(result.map_err(Lost::from)?),
            None => Ok(result?),
        }
    }

    /// Ends the work of this process: finds out who is gone if another is, and tells the others.
    ///
    /// # Errors
    /// That of `result`, with the number of this process and what became of others.
    pub fn end<T>(self: Rc<Self>, result: Result<T>) -> Result<T> {
        let rank = self.rank();
        let others = Rc::into_inner(self).and_then(|world| world.others);
        let (Some(others), Err(error)) = (others, &result) else {
            return result;
        };
        let Others { group, watch, .. } = others;
        // Whoever waits for this process learns at once that it is gone.
        drop(group);
        let (missing, reason) = match Lost::caused(error) {
            true => (watch.missing(), String::new()),
            false => (Missing::default(), format!("{error:#}")),
        };
        watch.leave(&reason, &missing);
        let name = match missing.words.is_empty() {
            true => format!("process {rank}"),
            false => format!("process {rank}: {}", missing.words.join("; ")),
        };
        result.context(name)
    }
}

impl Others {
    /// A key that was not used before, the same in all processes, for they ask in the same order.
    fn new_key(&self) -> String {
        let number = self.keys.get();
        self.keys.set(number + 1);
        format!("key/{number}")
    }
}

/// Refuses to run several times at once what is for one process.
///
/// # Errors
/// If the environment tells of other processes.
pub fn refuse_others() -> Result<()> {
    match Membership::from_env()? {
        Some(Membership { size, .. }) if size > 1 => bail!(
            "this command works in one process, but {size} were started; pretrain, tokenizer and eval share their work"
        ),
        _ => Ok(()),
    }
}

/// Where this process listens: the interface in GLOO_SOCKET_IFNAME, or the address by which it reaches the store.
fn address(membership: &Membership) -> Result<Address> {
    if let Ok(names) = std::env::var("GLOO_SOCKET_IFNAME") {
        let first = names.split(',').next().unwrap_or_default();
        return Ok(Address::Interface(first.into()));
    }
    if membership.is_local() {
        return Ok(Address::Host("127.0.0.1".into()));
    }
    let host = (membership.host.as_str(), membership.port);
    // A datagram socket sends nothing when it connects, but knows the way.
    let local = |any: &str| -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(host)?;
        Ok(socket.local_addr()?.ip())
    };
    let address = local("0.0.0.0")
        .or_else(|_| local("::"))
        .with_context(|| format!("finding the way to {}", membership.host))?;
    let is_meant = membership.host == "localhost" || membership.host.parse::<IpAddr>().is_ok();
    ensure!(
        is_meant || !address.is_loopback(),
        "process {} would listen at {address}, where other machines cannot reach it, for {} is this machine's name \
         for itself; name the network interface in GLOO_SOCKET_IFNAME, or give MASTER_ADDR as an address",
        membership.rank,
        membership.host
    );
    Ok(Address::Host(address.to_string()))
}
