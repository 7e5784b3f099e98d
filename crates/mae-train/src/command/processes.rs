//! The processes of commands that share their work.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use mae_train::distributed::{Membership, World, end_with_launcher, launch};

/// The longest that processes wait for each other: a week.
const MOST_MINUTES: f64 = 7.0 * 24.0 * 60.0;

/// How many processes share the work.
#[derive(Args)]
pub struct ProcessArgs {
    /// Starts that many processes on this machine, which share each batch; torchrun and srun start them on several
    #[arg(long, value_name = "N")]
    nproc: Option<usize>,
    /// Minutes that a process waits for another before it gives up
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    peer_timeout: f64,
}

impl ProcessArgs {
    /// Does the work in each process, or starts them.
    pub fn run(&self, work: impl FnOnce(&Rc<World>) -> Result<ExitCode>) -> Result<ExitCode> {
        ensure!(
            self.peer_timeout > 0.0 && self.peer_timeout <= MOST_MINUTES,
            "--peer-timeout is {}: expected a number of minutes above 0, and at most {MOST_MINUTES}",
            self.peer_timeout
        );
        let is_launched = end_with_launcher()?;
        if let (Some(count), false) = (self.nproc, is_launched) {
            ensure!(
                Membership::from_env()?.is_none(),
                "--nproc starts processes, but this is one that torchrun or srun has started: leave out --nproc, \
                 and let the launcher start as many as there are to be"
            );
            return launch(count);
        }
        let timeout = Duration::from_secs_f64(60.0 * self.peer_timeout);
        let world = Rc::new(World::join(timeout)?);
        let result = work(&world);
        world.end(result)
    }
}
