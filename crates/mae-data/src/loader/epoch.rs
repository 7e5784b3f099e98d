use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::batch::{Made, panic_message};
use super::recipe::Recipe;
use super::{MaskedBatch, Source};
use crate::error::DataError;

/// The batches of one epoch, made ahead of the consumer on other threads.
///
/// After an error there are no more batches.
/// Dropping it stops the threads: each finishes the image at hand.
pub struct Epoch<B = MaskedBatch> {
    /// `None` once the epoch has ended.
    batches: Option<Receiver<Result<B, DataError>>>,
    makers: Vec<JoinHandle<()>>,
    start_error: Option<DataError>,
    stop: Arc<AtomicBool>,
}

impl<B: Send + 'static> Epoch<B> {
    pub(super) fn start<C: Recipe<Batch = B>>(
        source: Arc<Source<C>>,
        epoch: u64,
        first_batch: usize,
    ) -> Epoch<B> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, batches) = sync_channel(source.batching.prefetch);
        let order = Arc::new(source.order(epoch));
        let turn = Arc::new(Turn::new(first_batch));
        let count = makers(
            source.pool.current_num_threads(),
            (source.batching.batch_size / source.batching.shard.size).max(1),
        );
        let mut makers = Vec::with_capacity(count);
        let mut start_error = None;
        for first in first_batch..first_batch.saturating_add(count) {
            let maker = Maker {
                source: Arc::clone(&source),
                epoch,
                order: Arc::clone(&order),
                first,
                step: count,
                turn: Arc::clone(&turn),
                stop: Arc::clone(&stop),
                sender: sender.clone(),
            };
            let thread = Builder::new().name("mae-loader".to_owned());
            match thread.spawn(move || maker.run()) {
                Ok(maker) => makers.push(maker),
                Err(error) => {
                    turn.end();
                    start_error = Some(DataError::Threads {
                        source: error.into(),
                    });
                    break;
                }
            }
        }
        Epoch {
            batches: Some(batches),
            makers,
            start_error,
            stop,
        }
    }
}

/// How many batches are made at a time.
///
/// The workers turn to a later batch only when nothing is left to begin of an earlier one, so two
/// suffice for no worker to idle at the end of a batch, unless batches are smaller than workers
/// are many.
fn makers(workers: usize, batch_size: usize) -> usize {
    1 + workers.div_ceil(batch_size)
}

impl<B> Epoch<B> {
    /// Waits for the makers; the error is the panic of one, if it died of one.
    fn finish(&mut self) -> Option<DataError> {
        self.stop.store(true, Ordering::Relaxed);
        // A maker that waits to send a batch returns when nobody can receive it.
        self.batches = None;
        let mut error = None;
        for maker in self.makers.drain(..) {
            if let Err(panic) = maker.join() {
                error.get_or_insert(DataError::Panic {
                    name: "epoch".to_owned(),
                    message: panic_message(panic.as_ref()),
                });
            }
        }
        error
    }
}

impl<B> Iterator for Epoch<B> {
    type Item = Result<B, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.start_error.take() {
            self.finish();
            return Some(Err(error));
        }
        match self.batches.as_ref()?.recv() {
            Ok(Ok(batch)) => Some(Ok(batch)),
            Ok(Err(error)) => {
                self.finish();
                Some(Err(error))
            }
            Err(_) => self.finish().map(Err),
        }
    }
}

impl<B> Drop for Epoch<B> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Makes every `step`-th batch of an epoch, and sends each when its turn has come.
struct Maker<C: Recipe> {
    source: Arc<Source<C>>,
    epoch: u64,
    order: Arc<Vec<usize>>,
    first: usize,
    step: usize,
    turn: Arc<Turn>,
    stop: Arc<AtomicBool>,
    sender: SyncSender<Result<C::Batch, DataError>>,
}

impl<C: Recipe> Maker<C> {
    fn run(&self) {
        // Dropped early, and by a panic too: the others must not wait for a turn that never comes.
        let turns = EndTurns(&self.turn);
        let batch_size = self.source.batching.batch_size;
        let batches = self.source.batching.batches(self.order.len());
        let shard = self.source.batching.shard;
        for number in (self.first..batches).step_by(self.step) {
            let end = ((number + 1) * batch_size).min(self.order.len());
            let indices = shard.of(&self.order[number * batch_size..end]);
            let made = (self.source).batch(self.epoch, number, &indices, &self.stop);
            if !self.turn.wait_for(number) || self.send(made).is_none() {
                self.stop.store(true, Ordering::Relaxed);
                return;
            }
            self.turn.pass();
        }
        std::mem::forget(turns);
    }

    /// Reports and sends; `None` if this was the last batch to be sent.
    fn send(&self, made: Result<Option<Made<C::Batch>>, DataError>) -> Option<()> {
        let message = match made {
            Ok(None) => return None,
            Ok(Some(made)) => (self.source.report_broken(made.broken)).map(|()| made.batch),
            Err(error) => Err(error),
        };
        let is_alone = !self.source.batching.shard.is_part();
        if is_alone && matches!(&message, Ok(batch) if C::is_empty(batch)) {
            return Some(());
        }
        let is_error = message.is_err();
        self.sender.send(message).ok()?;
        (!is_error).then_some(())
    }
}

/// The number of the batch that is to be sent next; `None` once there is none.
struct Turn {
    next: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Turn {
    fn new(first: usize) -> Turn {
        Turn {
            next: Mutex::new(Some(first)),
            changed: Condvar::new(),
        }
    }

    /// Waits for the turn of a batch; false if it will never come.
    fn wait_for(&self, number: usize) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let is_early = |next: &mut Option<usize>| next.is_some_and(|next| next != number);
        let next =
            (self.changed.wait_while(next, is_early)).unwrap_or_else(PoisonError::into_inner);
        next.is_some()
    }

    /// Goes on to the next batch.
    fn pass(&self) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = next.map(|next| next + 1);
        self.changed.notify_all();
    }

    fn end(&self) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed.notify_all();
    }
}

struct EndTurns<'a>(&'a Turn);

impl Drop for EndTurns<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
