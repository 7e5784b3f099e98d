//! PyTorch's distributed engine, c10d: what `torch.distributed` and `DistributedDataParallel` are made of.
//!
//! Keys and collectives are those of Python's `torch.distributed.init_process_group`, so that Rust and Python
//! processes can be in one group.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::time::Duration;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::ffi::{check, handle, handles};
use crate::{Error, Result};

#[repr(C)]
struct StoreHandle {
    _private: [u8; 0],
}

#[repr(C)]
struct GroupHandle {
    _private: [u8; 0],
}

#[repr(C)]
struct ReducerHandle {
    _private: [u8; 0],
}

// The C interface of `cpp/distributed.cpp`.
unsafe extern "C" {
    fn ext_store_connect(
        host: *const c_char,
        port: u16,
        is_server: bool,
        timeout_ms: u64,
        result: *mut *mut StoreHandle,
    ) -> *mut c_char;
    fn ext_store_clone(store: *const StoreHandle, result: *mut *mut StoreHandle) -> *mut c_char;
    fn ext_store_with_prefix(
        store: *const StoreHandle,
        prefix: *const c_char,
        result: *mut *mut StoreHandle,
    ) -> *mut c_char;
    fn ext_store_free(store: *mut StoreHandle);
    fn ext_store_set(
        store: *const StoreHandle,
        key: *const c_char,
        value: *const u8,
        length: usize,
    ) -> *mut c_char;
    fn ext_store_get(
        store: *const StoreHandle,
        key: *const c_char,
        state: *mut c_void,
        take: unsafe extern "C" fn(*mut c_void, *const u8, usize),
    ) -> *mut c_char;
    fn ext_store_add(
        store: *const StoreHandle,
        key: *const c_char,
        amount: i64,
        result: *mut i64,
    ) -> *mut c_char;
    fn ext_store_check(
        store: *const StoreHandle,
        key: *const c_char,
        result: *mut bool,
    ) -> *mut c_char;
    fn ext_store_wait(
        store: *const StoreHandle,
        key: *const c_char,
        timeout_ms: u64,
    ) -> *mut c_char;
    fn ext_group_new(
        store: *const StoreHandle,
        rank: c_int,
        size: c_int,
        nccl: bool,
        address: *const c_char,
        is_interface: bool,
        timeout_ms: u64,
        result: *mut *mut GroupHandle,
    ) -> *mut c_char;
    fn ext_group_free(group: *mut GroupHandle);
    fn ext_group_all_reduce(
        group: *const GroupHandle,
        tensor: *const C_tensor,
        op: c_int,
    ) -> *mut c_char;
    fn ext_group_broadcast(
        group: *const GroupHandle,
        tensors: *const *mut C_tensor,
        count: usize,
        bucket_bytes: usize,
    ) -> *mut c_char;
    fn ext_reducer_new(
        group: *const GroupHandle,
        params: *const *mut C_tensor,
        count: usize,
        first_bucket_bytes: usize,
        bucket_bytes: usize,
        result: *mut *mut ReducerHandle,
    ) -> *mut c_char;
    fn ext_reducer_free(reducer: *mut ReducerHandle) -> *mut c_char;
    fn ext_reducer_before_forward(reducer: *mut ReducerHandle) -> *mut c_char;
    fn ext_reducer_before_backward(
        reducer: *mut ReducerHandle,
        loss: *const C_tensor,
    ) -> *mut c_char;
    fn ext_backward(loss: *const C_tensor) -> *mut c_char;
}

/// Bytes that [`ProcessGroup::broadcast`] sends at a time.
const BROADCAST_BYTES: usize = 250 << 20;

/// The key-value store that processes meet at: c10d's `TCPStore`.
///
/// It is on one connection, and a call holds it until it is answered: another thread takes a
/// [`connection`](Self::connection) of its own.
#[derive(Debug)]
pub struct Store(NonNull<StoreHandle>);

// SAFETY: c10d's stores lock around every use of their connection.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects to the store at `host:port`, which this process keeps itself if it is the server.
    ///
    /// # Errors
    /// If the address cannot be bound, or nothing answers within `timeout`, which is also that of [`get`](Self::get).
    pub fn connect(host: &str, port: u16, is_server: bool, timeout: Duration) -> Result<Self> {
        let host = c_string(host)?;
        // SAFETY: a live string, and room for the result.
        Self::made(|result| unsafe {
            ext_store_connect(
                host.as_ptr(),
                port,
                is_server,
                milliseconds(timeout),
                result,
            )
        })
    }

    /// Another connection to the same store.
    ///
    /// # Errors
    /// If the store is gone.
    pub fn connection(&self) -> Result<Self> {
        // SAFETY: a live store, and room for the result.
        Self::made(|result| unsafe { ext_store_clone(self.0.as_ptr(), result) })
    }

    /// The same store, with `prefix` and a slash before every key.
    ///
    /// # Errors
    /// If `prefix` has a zero byte in it.
    pub fn with_prefix(&self, prefix: &str) -> Result<Self> {
        let prefix = c_string(prefix)?;
        // SAFETY: a live store, a live string, and room for the result.
        Self::made(|result| unsafe {
            ext_store_with_prefix(self.0.as_ptr(), prefix.as_ptr(), result)
        })
    }

    fn made(make: impl FnOnce(*mut *mut StoreHandle) -> *mut c_char) -> Result<Self> {
        let mut result = null_mut();
        check(make(&mut result))?;
        Ok(Self(not_null(result)?))
    }

    /// Writes the value of a key.
    ///
    /// # Errors
    /// If the store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: a live store, a live string, and `value.len()` bytes.
        check(unsafe { ext_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// The value of a key, once it has one.
    ///
    /// # Errors
    /// If it has none within the store's timeout, or the store is gone.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        unsafe extern "C" fn take(state: *mut c_void, value: *const u8, length: usize) {
            // SAFETY: `state` is the vector below, and C++ gives `length` bytes that live during this call.
            unsafe {
                let value = match length {
                    0 => &[],
                    _ => std::slice::from_raw_parts(value, length),
                };
                (*state.cast::<Vec<u8>>()).extend_from_slice(value);
            }
        }
        let key = c_string(key)?;
        let mut value = Vec::new();
        // SAFETY: a live store and a live string; `take` is given the vector during the call alone.
        check(unsafe {
            ext_store_get(self.0.as_ptr(), key.as_ptr(), (&raw mut value).cast(), take)
        })?;
        Ok(value)
    }

    /// Adds to a key's number, 0 where it has none, and returns the sum.
    ///
    /// # Errors
    /// If the store is gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key = c_string(key)?;
        let mut result = 0;
        // SAFETY: a live store, a live string, and room for the result.
        check(unsafe { ext_store_add(self.0.as_ptr(), key.as_ptr(), amount, &mut result) })?;
        Ok(result)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// If the store is gone.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = c_string(key)?;
        let mut result = false;
        // SAFETY: a live store, a live string, and room for the result.
        check(unsafe { ext_store_check(self.0.as_ptr(), key.as_ptr(), &mut result) })?;
        Ok(result)
    }

    /// Waits until a key has a value.
    ///
    /// # Errors
    /// If it has none within `timeout`, or the store is gone.
    pub fn wait(&self, key: &str, timeout: Duration) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: a live store and a live string.
        check(unsafe { ext_store_wait(self.0.as_ptr(), key.as_ptr(), milliseconds(timeout)) })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: ours, and never used again.
        unsafe { ext_store_free(self.0.as_ptr()) }
    }
}

/// What tensors travel by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Gloo, for tensors on the CPU alone.
    Gloo,
    /// NCCL for tensors on CUDA, and Gloo for those on the CPU.
    Nccl,
}

impl Backend {
    /// Whether this program was built with it.
    pub fn is_built_in(self) -> bool {
        self == Self::Gloo || cfg!(feature = "nccl")
    }
}

/// Where a process listens for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The address of a network interface, as `eth0`.
    Interface(String),
    /// An address of this machine, or a name of one.
    Host(String),
}

/// How values of several processes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// Processes that make the same collective calls in the same order.
#[derive(Debug)]
pub struct ProcessGroup {
    handle: NonNull<GroupHandle>,
    rank: usize,
    size: usize,
}

// SAFETY: the group is used by one thread at a time, for there is no `Sync`, and not bound to one.
unsafe impl Send for ProcessGroup {}

impl ProcessGroup {
    /// Joins the group of `size` processes that meet at `store`, as number `rank` of them.
    ///
    /// # Errors
    /// If the others do not come, or cannot be reached at what they listen at, within `timeout`;
    /// this is also the time that a collective call waits for them.
    pub fn new(
        backend: Backend,
        store: &Store,
        rank: usize,
        size: usize,
        address: &Address,
        timeout: Duration,
    ) -> Result<Self> {
        let (address, is_interface) = match address {
            Address::Interface(name) => (c_string(name)?, true),
            Address::Host(name) => (c_string(name)?, false),
        };
        let mut result = null_mut();
        // SAFETY: a live store, a live string, and room for the result.
        check(unsafe {
            ext_group_new(
                store.0.as_ptr(),
                c_number(rank)?,
                c_number(size)?,
                backend == Backend::Nccl,
                address.as_ptr(),
                is_interface,
                milliseconds(timeout),
                &mut result,
            )
        })?;
        Ok(Self {
            handle: not_null(result)?,
            rank,
            size,
        })
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Replaces `tensor` by what `op` makes of those of all processes, which have the same shape and dtype.
    ///
    /// # Errors
    /// If a process is gone or does not come within the timeout.
    pub fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<()> {
        let op = match op {
            ReduceOp::Sum => 0,
            ReduceOp::Max => 1,
        };
        // SAFETY: a live group and a live tensor.
        check(unsafe { ext_group_all_reduce(self.handle.as_ptr(), handle(tensor), op) })
    }

    /// Replaces `tensors` by those of the first process, which have the same shapes and dtypes.
    ///
    /// # Errors
    /// If a process is gone or does not come within the timeout.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        // SAFETY: a live group, and a list of `tensors.len()` live handles.
        check(unsafe {
            ext_group_broadcast(
                self.handle.as_ptr(),
                handles(tensors).as_ptr(),
                tensors.len(),
                BROADCAST_BYTES,
            )
        })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: ours, and never used again; a reducer holds a reference of its own.
        unsafe { ext_group_free(self.handle.as_ptr()) }
    }
}

/// Averages gradients over the processes of a group while the backward pass is still computing others:
/// c10d's `Reducer`, the engine of `DistributedDataParallel`.
///
/// It hooks into the parameters: from [`before_backward`](Self::before_backward) to the end of the backward pass,
/// gradients are gathered in buckets, and each full bucket is averaged at once.
/// A backward pass without that call adds to the gradients of this process alone, as under DDP's `no_sync`;
/// the next one with it averages the sums.
///
/// Source: Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training".
#[derive(Debug)]
pub struct Reducer {
    // Neither Send nor Sync: hooks run where the backward pass does.
    handle: NonNull<ReducerHandle>,
}

impl Reducer {
    /// DDP's size of all buckets but the first.
    pub const BUCKET_BYTES: usize = 25 << 20;
    /// DDP's size of the first bucket, small so that averaging begins soon.
    pub const FIRST_BUCKET_BYTES: usize = 1 << 20;

    /// A reducer of the gradients of `params`, which are the same in all processes and all require gradients.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn new(group: &ProcessGroup, params: &[Tensor]) -> Result<Self> {
        let mut result = null_mut();
        // SAFETY: a live group, a list of `params.len()` live handles, and room for the result.
        check(unsafe {
            ext_reducer_new(
                group.handle.as_ptr(),
                handles(params).as_ptr(),
                params.len(),
                Self::FIRST_BUCKET_BYTES,
                Self::BUCKET_BYTES,
                &mut result,
            )
        })?;
        Ok(Self {
            handle: not_null(result)?,
        })
    }

    /// To be called before the forward pass whose gradients are to be averaged.
    ///
    /// # Errors
    /// If the last averaging did not end, because a parameter took no part in the loss,
    /// or another process is gone.
    pub fn before_forward(&mut self) -> Result<()> {
        // SAFETY: a live reducer.
        check(unsafe { ext_reducer_before_forward(self.handle.as_ptr()) })
    }

    /// To be called between the forward pass and [`backward`], with the loss; every parameter takes part in it.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn before_backward(&mut self, loss: &Tensor) -> Result<()> {
        // SAFETY: a live reducer and a live tensor.
        check(unsafe { ext_reducer_before_backward(self.handle.as_ptr(), handle(loss)) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: ours, and never used again. What it may say is no news: the pass it is of has failed.
        let _ = check(unsafe { ext_reducer_free(self.handle.as_ptr()) });
    }
}

/// Computes the gradients of a loss.
///
/// # Errors
/// If libtorch refuses, or a [`Reducer`] cannot reach another process.
pub fn backward(loss: &Tensor) -> Result<()> {
    // SAFETY: a live tensor.
    check(unsafe { ext_backward(handle(loss)) })
}

fn not_null<T>(pointer: *mut T) -> Result<NonNull<T>> {
    NonNull::new(pointer).ok_or_else(|| Error("no object was made".into()))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error(format!("{text:?} has a zero byte in it")))
}

fn c_number(number: usize) -> Result<c_int> {
    c_int::try_from(number).map_err(|_| Error(format!("{number} is too many processes")))
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
