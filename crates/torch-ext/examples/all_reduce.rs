//! One process of a group, which may have Python processes in it, too: sums 1, 2, ... over all and prints the sum.
//!
//! Started by torchrun, or with `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` set:
//!
//! ```sh
//! export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500
//! RANK=0 python crates/torch-ext/examples/all_reduce.py &
//! RANK=1 cargo run -p torch-ext --example all_reduce
//! ```

use std::env::var;
use std::error::Error;
use std::time::Duration;

use tch::{Kind, Tensor};
use torch_ext::{Address, Backend, ProcessGroup, ReduceOp, Store};

const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let (rank, size): (usize, usize) = (var("RANK")?.parse()?, var("WORLD_SIZE")?.parse()?);
    let is_agents = var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|value| value == "True");
    let (host, port) = (var("MASTER_ADDR")?, var("MASTER_PORT")?.parse()?);
    let mut store = Store::connect(&host, port, rank == 0 && !is_agents, TIMEOUT)?;
    if is_agents {
        let attempt = var("TORCHELASTIC_RESTART_COUNT")?;
        store = store.with_prefix(&format!("/worker/attempt_{attempt}"))?;
    }
    let address = Address::Host("127.0.0.1".into());
    let group = ProcessGroup::new(Backend::Gloo, &store, rank, size, &address, TIMEOUT)?;
    let numbers = Tensor::arange(1_000_000, (Kind::Float, tch::Device::Cpu));
    let tensor = numbers.remainder(100.0) * (rank + 1) as f64;
    group.all_reduce(&tensor, ReduceOp::Sum)?;
    println!(
        "rank {rank}: {:?}",
        tensor.sum(Kind::Double).double_value(&[])
    );
    // Nobody leaves while another still reads from it.
    group.all_reduce(&Tensor::from(0f32), ReduceOp::Sum)?;
    Ok(())
}
