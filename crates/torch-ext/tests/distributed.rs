//! Several processes, played by threads: each has its own connection to the store and its own process group.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use torch_ext::{Address, Backend, ProcessGroup, ReduceOp, Reducer, Store, backward, clear_grads};

const TIMEOUT: Duration = Duration::from_secs(60);

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn join(
    store: &Store,
    rank: usize,
    size: usize,
    timeout: Duration,
) -> torch_ext::Result<ProcessGroup> {
    let address = Address::Host("127.0.0.1".into());
    ProcessGroup::new(Backend::Gloo, store, rank, size, &address, timeout)
}

/// What `work` makes of each of `size` processes.
fn on_each<T: Send>(size: usize, work: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    let port = free_port();
    let work = &work;
    thread::scope(|scope| {
        let processes: Vec<_> = (0..size)
            .map(|rank| {
                scope.spawn(move || {
                    let store = Store::connect("127.0.0.1", port, rank == 0, TIMEOUT).unwrap();
                    work(join(&store, rank, size, TIMEOUT).unwrap())
                })
            })
            .collect();
        processes
            .into_iter()
            .map(|process| process.join().unwrap())
            .collect()
    })
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view([-1])).unwrap()
}

#[test]
fn a_store_keeps_what_all_see() {
    let port = free_port();
    let server = Store::connect("127.0.0.1", port, true, TIMEOUT).unwrap();
    let client = Store::connect("127.0.0.1", port, false, TIMEOUT).unwrap();
    server.set("key", b"value\0\xff").unwrap();
    assert_eq!(client.get("key").unwrap(), b"value\0\xff");
    server.set("empty", b"").unwrap();
    assert_eq!(client.get("empty").unwrap(), b"");
    assert_eq!(client.add("count", 2).unwrap(), 2);
    assert_eq!(server.connection().unwrap().add("count", 3).unwrap(), 5);
    let inner = client.with_prefix("inner").unwrap();
    assert!(!inner.has("key").unwrap() && client.has("key").unwrap());
    inner.set("key", b"other").unwrap();
    assert_eq!(client.get("inner/key").unwrap(), b"other");
    let start = Instant::now();
    assert!(client.wait("never", Duration::from_millis(200)).is_err());
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(
        client
            .set("a\0b", b"")
            .unwrap_err()
            .to_string()
            .contains("zero byte")
    );
}

#[test]
fn nobody_at_the_address_is_an_error_in_time() {
    let start = Instant::now();
    let error =
        Store::connect("127.0.0.1", free_port(), false, Duration::from_secs(2)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(30), "{error}");
    let text = error.to_string();
    assert!(
        !text.contains("frame #"),
        "a backtrace is no message: {text}"
    );
}

#[test]
fn sums_maxima_and_copies_are_of_all_processes() {
    let results = on_each(3, |group| {
        let rank = group.rank() as f32;
        assert_eq!(group.size(), 3);
        let sum = Tensor::from_slice(&[rank, 1.0]);
        group.all_reduce(&sum, ReduceOp::Sum).unwrap();
        let max = Tensor::from(group.rank() as i64);
        group.all_reduce(&max, ReduceOp::Max).unwrap();
        let tensors = [Tensor::from_slice(&[rank; 4]), Tensor::from(rank)];
        group.broadcast(&tensors).unwrap();
        (
            values(&sum),
            max.int64_value(&[]),
            values(&tensors[0]),
            values(&tensors[1]),
        )
    });
    for result in results {
        assert_eq!(result, (vec![3.0, 3.0], 2, vec![0.0; 4], vec![0.0]));
    }
}

#[test]
fn a_reducer_averages_gradients() {
    // Two passes a step, the first of which stays here; three steps, for buckets are built anew after the first.
    let of_rank = |rank: f64, pass: f64, step: f64| 1.0 + rank + 10.0 * pass + 100.0 * step;
    let results = on_each(2, |group| {
        let rank = group.rank() as f64;
        let params: Vec<Tensor> = [[300, 1000], [7, 3], [1, 1]]
            .iter()
            .map(|size| Tensor::ones(size, (Kind::Float, Device::Cpu)).set_requires_grad(true))
            .collect();
        let mut reducer = Reducer::new(&group, &params).unwrap();
        let mut grads = Vec::new();
        for step in 0..3 {
            for pass in 0..2 {
                if pass == 1 {
                    reducer.before_forward().unwrap();
                }
                let loss = params
                    .iter()
                    .enumerate()
                    .map(|(i, p)| {
                        (p * (i as f64 + of_rank(rank, pass as f64, step as f64))).sum(Kind::Float)
                    })
                    .fold(Tensor::from(0f32), |sum, term| sum + term);
                if pass == 1 {
                    reducer.before_backward(&loss).unwrap();
                }
                backward(&loss).unwrap();
            }
            grads.push(
                params
                    .iter()
                    .map(|p| values(&p.grad())[0])
                    .collect::<Vec<_>>(),
            );
            clear_grads(&params).unwrap();
        }
        grads
    });
    for grads in results {
        for (step, grads) in grads.iter().enumerate() {
            for (i, &grad) in grads.iter().enumerate() {
                let passes = [0.0, 1.0].map(|pass| {
                    [0.0, 1.0]
                        .map(|rank| i as f64 + of_rank(rank, pass, step as f64))
                        .iter()
                        .sum::<f64>()
                        / 2.0
                });
                assert_eq!(
                    f64::from(grad),
                    passes.iter().sum::<f64>(),
                    "parameter {i}, step {step}"
                );
            }
        }
    }
}

#[test]
fn a_process_that_does_not_come_is_an_error_in_time() {
    let store = Store::connect("127.0.0.1", free_port(), true, Duration::from_secs(2)).unwrap();
    let start = Instant::now();
    assert!(join(&store, 0, 2, Duration::from_secs(2)).is_err());
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_process_that_is_gone_is_an_error() {
    let results = on_each(2, |group| {
        if group.rank() == 1 {
            return None;
        }
        Some(group.all_reduce(&Tensor::from(1f32), ReduceOp::Sum))
    });
    assert!(matches!(results[..], [Some(Err(_)), None]));
}
