//! Whether the user ends this process: cells then save before it does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result};

/// Knows whether Ctrl-C was pressed, or the process asked to end in another way.
pub struct Interrupt {
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on such a signal no longer ends this process.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn catch() -> Result<Self> {
        let pressed = Arc::new(AtomicBool::new(false));
        let signals = signal_hook::consts::TERM_SIGNALS.iter();
        #[cfg(unix)]
        let signals = signals.chain(&[signal_hook::consts::SIGHUP]);
        for &signal in signals {
            signal_hook::flag::register(signal, Arc::clone(&pressed))
                .context("cannot catch Ctrl-C")?;
        }
        Ok(Self { pressed })
    }

    /// Whether it was.
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }
}
