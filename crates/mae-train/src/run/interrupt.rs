//! Ctrl-C and SIGTERM: the first asks a run to save and stop, a second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::Stopped;

/// Whether the process was asked to stop, and by which signal.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Catches SIGINT and SIGTERM from here on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn catch() -> Result<Self> {
        let interrupt = Self::default();
        let second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let register = || -> std::io::Result<()> {
                // In this order: the shutdown looks at what the signal before this one left.
                flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&second))?;
                flag::register(signal, Arc::clone(&second))?;
                flag::register_usize(signal, Arc::clone(&interrupt.0), signal as usize)?;
                Ok(())
            };
            register().with_context(|| format!("catching signal {signal}"))?;
        }
        Ok(interrupt)
    }

    /// The number of the signal that came, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// Makes sure that none came.
    ///
    /// # Errors
    /// If one did.
    pub fn check(&self) -> Result<(), Stopped> {
        match self.signal() {
            None => Ok(()),
            Some(_) => Err(Stopped),
        }
    }
}
