//! The wires between the parts: every call is counted, and one of them can be struck. No I/O.
//!
//! Guarantees: nothing that a dead process calls arrives anywhere; a struck call arrived entirely or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// The way to the other side.
const LATENCY: Duration = Duration::from_millis(1);

/// On which side of a call the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It never arrived.
    Before,
    /// It arrived and was done; nobody hears of that.
    After,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Every process of SHADOW ends and is started again so much later, with nothing but its disk.
    Crash(Side, Duration),
    /// The caller is told that the connection broke. Nobody ends.
    Cut(Side),
    /// A second operator starts; the first one goes on as if it led.
    Rival,
    /// A second operator starts, and the call arrives only so much later.
    RivalAndLate(Duration),
}

/// The call that is struck, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blow {
    pub call: usize,
    pub strike: Strike,
}

/// The connection broke.
#[derive(Clone, Copy, Debug)]
pub struct Broken;

/// A process that calls others.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    /// A process of SHADOW: it dies in a crash.
    mortal: bool,
    dead: AtomicBool,
}

#[derive(Default)]
struct Book {
    armed: Option<Instant>,
    blow: Option<Blow>,
    calls: usize,
    /// How many had been made when the commit was written.
    before_commit: Option<usize>,
    trace: Vec<String>,
    processes: Vec<Arc<Process>>,
}

impl Book {
    /// Seconds since the drain began.
    fn time(&self) -> String {
        format!("{:8.3}", self.armed.map_or(0.0, |armed| armed.elapsed().as_secs_f64()))
    }
}

/// All wires.
pub struct Wire {
    book: Mutex<Book>,
    struck: watch::Sender<Option<Strike>>,
}

impl Wire {
    pub fn new(blow: Option<Blow>) -> Arc<Self> {
        let book = Book { blow, ..Book::default() };
        Arc::new(Self { book: Mutex::new(book), struck: watch::Sender::new(None) })
    }

    /// Counts from now on.
    pub fn arm(&self) {
        self.book.lock().armed = Some(Instant::now());
    }

    /// The end of a new process's line.
    pub fn line(self: &Arc<Self>, name: &str, mortal: bool) -> Line {
        let caller = Arc::new(Process { name: name.to_owned(), mortal, dead: AtomicBool::new(false) });
        self.book.lock().processes.push(Arc::clone(&caller));
        Line { wire: Arc::clone(self), caller }
    }

    /// Resolves once the blow was struck.
    pub async fn struck(&self) -> Strike {
        let mut struck = self.struck.subscribe();
        let known = struck.wait_for(Option::is_some).await.ok().and_then(|strike| *strike);
        match known {
            Some(strike) => strike,
            None => std::future::pending().await,
        }
    }

    pub fn was_struck(&self) -> bool {
        self.struck.borrow().is_some()
    }

    /// What a deposed operator does after the end nobody takes away but time.
    pub fn has_rival(&self) -> bool {
        let blow = self.book.lock().blow;
        blow.is_some_and(|blow| matches!(blow.strike, Strike::Rival | Strike::RivalAndLate(_)))
    }

    pub fn calls(&self) -> usize {
        self.book.lock().calls
    }

    /// The commit is being written.
    pub fn commits(&self) {
        let mut book = self.book.lock();
        let calls = book.calls;
        book.before_commit.get_or_insert(calls);
    }

    pub fn before_commit(&self) -> Option<usize> {
        self.book.lock().before_commit
    }

    /// What was called, in order.
    pub fn trace(&self) -> Vec<String> {
        self.book.lock().trace.clone()
    }

    /// Notes what is no call but helps to read the trace.
    pub fn note(&self, what: String) {
        let mut book = self.book.lock();
        let line = format!("{}      {what}", book.time());
        book.trace.push(line);
    }

    fn count(&self, caller: &Process, what: &str) -> Option<Strike> {
        let mut book = self.book.lock();
        book.armed?;
        book.calls += 1;
        let call = book.calls;
        let strike = book.blow.filter(|blow| blow.call == call).map(|blow| blow.strike);
        let mark = strike.map_or_else(String::new, |strike| format!("   <== {strike:?}"));
        let line = format!("{}{call:4}. {}: {what}{mark}", book.time(), caller.name);
        book.trace.push(line);
        strike
    }

    fn strike(&self, strike: Strike) {
        if matches!(strike, Strike::Crash(..)) {
            for process in self.book.lock().processes.drain(..).filter(|process| process.mortal) {
                process.dead.store(true, Ordering::SeqCst);
            }
        }
        self.struck.send_replace(Some(strike));
    }
}

/// One process's way to the others.
#[derive(Clone)]
pub struct Line {
    wire: Arc<Wire>,
    pub caller: Arc<Process>,
}

impl Line {
    /// Makes a call that is counted.
    pub async fn call<T: Send + 'static>(
        &self,
        what: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Broken> {
        tokio::time::sleep(LATENCY).await;
        self.must_live().await;
        let Some(strike) = self.wire.count(&self.caller, what) else { return Ok(work.await) };
        match strike {
            Strike::Crash(Side::Before, _) | Strike::Cut(Side::Before) => {}
            Strike::Crash(Side::After, _) | Strike::Cut(Side::After) => drop(work.await),
            Strike::Rival => {
                self.wire.strike(strike);
                return Ok(work.await);
            }
            // Only what goes over the network can arrive when its sender has long given up.
            Strike::RivalAndLate(late) if !self.caller.mortal => {
                self.wire.strike(strike);
                tokio::time::sleep(late).await;
                return Ok(work.await);
            }
            Strike::RivalAndLate(late) => {
                self.wire.strike(strike);
                let (sender, receiver) = oneshot::channel();
                // It is on its way, whether the caller still waits or not.
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let _ = sender.send(work.await);
                });
                return receiver.await.map_err(|_| Broken);
            }
        }
        self.wire.strike(strike);
        self.must_live().await;
        Err(Broken)
    }

    /// Calls without being counted: what nothing depends on.
    pub async fn aside<T>(&self, work: impl Future<Output = T>) -> T {
        self.must_live().await;
        work.await
    }

    pub fn is_dead(&self) -> bool {
        self.caller.dead.load(Ordering::SeqCst)
    }

    /// A dead process does nothing any more.
    async fn must_live(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}
