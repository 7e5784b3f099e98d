//! Child processes that end when the user ends this one.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// How often a child is asked whether it has ended: seldom enough not to be measured.
const POLL: Duration = Duration::from_millis(20);

/// Knows whether Ctrl-C was pressed, or the process asked to end in another way.
pub struct Interrupt {
    pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on such a signal no longer ends this process, but [`run`] fails.
    pub fn catch() -> Result<Self> {
        let pressed = Arc::new(AtomicBool::new(false));
        for &signal in signal_hook::consts::TERM_SIGNALS {
            signal_hook::flag::register(signal, Arc::clone(&pressed))
                .context("cannot catch Ctrl-C")?;
        }
        #[cfg(unix)]
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&pressed))
            .context("cannot catch the end of the terminal")?;
        Ok(Self { pressed })
    }

    /// Whether it was.
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// # Errors
    /// If it was.
    pub fn check(&self) -> Result<()> {
        if self.is_pressed() {
            bail!("interrupted: what was not complete is not kept");
        }
        Ok(())
    }
}

/// How a child ended, and what it wrote.
pub struct Finished {
    pub status: ExitStatus,
    /// Its standard output, unless `command` sends it elsewhere.
    pub output: String,
    /// Its standard error, if `command` pipes that.
    pub errors: String,
}

/// Runs `command` to its end.
///
/// # Errors
/// If it cannot be started; or on Ctrl-C, after killing it and all that it started.
pub fn run(command: &mut Command, interrupt: &Interrupt) -> Result<Finished> {
    interrupt.check()?;
    command.stdin(Stdio::null());
    // A group of its own: Ctrl-C reaches this process alone, which then ends the child with all its workers.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let output = read_all(child.stdout.take());
    let errors = read_all(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(interrupted) = interrupt.check() {
            kill(&mut child);
            return Err(interrupted);
        }
        thread::sleep(POLL);
    };
    Ok(Finished {
        status,
        output: text(output),
        errors: text(errors),
    })
}

/// Reads beside the child, which would otherwise wait at a full pipe.
fn read_all(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Vec<u8>>> {
    pipe.map(|mut pipe| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What cannot be read is as if it had not been written.
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    })
}

fn text(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn kill(child: &mut Child) {
    #[cfg(unix)]
    {
        // The shell's own `kill`: the program of that name is not on every machine.
        let killed = Command::new("sh")
            .args(["-c", r#"kill -s KILL -- "-$0""#, &child.id().to_string()])
            .status();
        if !killed.is_ok_and(|status| status.success()) {
            eprintln!("workers of the last measurement may go on for a while");
        }
    }
    let _: io::Result<()> = child.kill();
    let _ = child.wait();
}
