//! A consumer: one process with its memory, which works, parks and resumes as `examples/consumer` does, with the
//! product's own `ConsumerGate`. It can be frozen at any await and killed at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shadow::api::control_queue;
use shadow::broker::control::{AnswerType, Fence, Order, OrderType};
use shadow::broker::{ConsumerGate, Decision, answer};
use tokio::sync::watch;
use tokio::time::sleep;

use super::World;
use super::broker::{ConnectionId, Message, SubscriptionId};
use super::mistake::Mistake;

pub const PRIMARY: &str = "orders";
const WORK: Duration = Duration::from_millis(3);
const RECONNECT: Duration = Duration::from_millis(20);
const PREFETCH: usize = 5;
/// A connection on which nothing was heard this long is closed by the broker.
const HEARTBEATS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(250);

/// All that a process knows; a dump takes it along.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub applied: Vec<u64>,
    /// How many writes over HTTP it has acknowledged.
    pub written: u64,
    pub gate: ConsumerGate,
    /// It was restored, or lives since before the drain.
    pub has_past: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Running,
    Frozen,
    /// Restored, and not let go yet: it has not run an instruction.
    Stopped,
    Dead,
}

pub struct App {
    pub number: usize,
    pub node: String,
    pub pod: String,
    pub pod_uid: String,
    pub memory: Mutex<Memory>,
    life: watch::Sender<Life>,
    stopping: AtomicBool,
    /// It was not restored, or an agent has let it go.
    may_run: AtomicBool,
    connection: Mutex<Option<ConnectionId>>,
}

/// Why a session ended.
enum End {
    Lost,
    Dead,
}

struct Session {
    connection: ConnectionId,
    orders: SubscriptionId,
    held: Option<u64>,
    seat: Option<SubscriptionId>,
}

impl App {
    pub fn start(world: &World, node: &str, pod: &str, pod_uid: &str, memory: Memory) -> Arc<Self> {
        Self::begin(world, [node, pod, pod_uid], memory, Life::Running, true)
    }

    /// It stands still until somebody lets it go.
    pub fn restore(world: &World, node: &str, pod: &str, pod_uid: &str, memory: Memory) -> Arc<Self> {
        let life = if world.scenario.has(Mistake::RestoreLetsRun) { Life::Running } else { Life::Stopped };
        Self::begin(world, [node, pod, pod_uid], memory, life, false)
    }

    fn begin(
        world: &World,
        [node, pod, pod_uid]: [&str; 3],
        memory: Memory,
        life: Life,
        may_run: bool,
    ) -> Arc<Self> {
        let mut apps = world.apps.lock();
        let app = Arc::new(Self {
            number: apps.len(),
            node: node.to_owned(),
            pod: pod.to_owned(),
            pod_uid: pod_uid.to_owned(),
            memory: Mutex::new(memory),
            life: watch::Sender::new(life),
            stopping: AtomicBool::new(false),
            may_run: AtomicBool::new(may_run),
            connection: Mutex::new(None),
        });
        apps.push(Arc::clone(&app));
        drop(apps);
        tokio::spawn(Arc::clone(&app).run(world.clone()));
        app
    }

    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    pub fn is_alive(&self) -> bool {
        self.life() != Life::Dead
    }

    pub fn connection(&self) -> Option<ConnectionId> {
        *self.connection.lock()
    }

    pub fn freeze(self: &Arc<Self>, world: &World) {
        if self.life() != Life::Running {
            return;
        }
        self.life.send_replace(Life::Frozen);
        let (app, world, connection) = (Arc::clone(self), world.clone(), self.connection());
        tokio::spawn(async move {
            sleep(HEARTBEATS).await;
            if let Some(connection) = connection.filter(|_| app.life() == Life::Frozen) {
                world.broker.disconnect(connection);
            }
        });
    }

    pub fn thaw(&self) {
        if self.life() == Life::Frozen {
            self.life.send_replace(Life::Running);
        }
    }

    /// It was not restored, or an agent has let it go.
    pub fn may_run(&self) -> bool {
        self.may_run.load(Ordering::SeqCst)
    }

    /// What was restored goes on.
    pub fn wake(&self) {
        self.may_run.store(true, Ordering::SeqCst);
        if self.life() == Life::Stopped {
            self.life.send_replace(Life::Running);
        }
    }

    pub fn kill(&self, world: &World) {
        self.life.send_replace(Life::Dead);
        if let Some(connection) = self.connection.lock().take() {
            world.broker.disconnect(connection);
        }
    }

    /// SIGTERM: works off what it was given, then ends. A frozen process hears nothing yet; one that has never run is
    /// killed when its grace is over.
    pub fn stop(&self, world: &World) {
        if self.life() == Life::Stopped {
            self.kill(world);
        }
        self.stopping.store(true, Ordering::SeqCst);
        self.life.send_modify(|_| ());
    }

    /// A write over HTTP; a process that stands still acknowledges nothing.
    pub fn write(&self, world: &World) {
        if self.life() == Life::Running {
            self.memory.lock().written += 1;
            world.invariants.wrote(world, self);
        }
    }

    /// A shadow, restored and alive.
    pub fn is_shadow_restored(&self) -> bool {
        self.pod.contains("-shadow-") && self.memory.lock().has_past && self.is_alive()
    }

    pub async fn died(&self) {
        let _ = self.life.subscribe().wait_for(|life| *life == Life::Dead).await;
    }

    async fn awake(&self) -> Result<(), End> {
        let mut life = self.life.subscribe();
        match life.wait_for(|life| !matches!(life, Life::Frozen | Life::Stopped)).await.map(|life| *life) {
            Ok(Life::Running) => Ok(()),
            _ => Err(End::Dead),
        }
    }

    async fn run(self: Arc<Self>, world: World) {
        while let Err(End::Lost) = self.session(&world).await {
            sleep(RECONNECT).await;
        }
    }

    async fn session(&self, world: &World) -> Result<(), End> {
        self.awake().await?;
        world.invariants.before_running(world, self);
        let connection = world.broker.connect();
        *self.connection.lock() = Some(connection);
        let queue = control_queue(&self.pod);
        world.broker.declare(&queue);
        let orders = world.broker.consume(connection, &queue, 100).ok_or(End::Lost)?;
        let mut session = Session { connection, orders, held: None, seat: None };
        let (mut changes, mut life) = (world.broker.changes(), self.life.subscribe());
        loop {
            changes.borrow_and_update();
            life.borrow_and_update();
            self.awake().await?;
            if !world.broker.is_connected(connection) {
                return Err(End::Lost);
            }
            if self.stopping.load(Ordering::SeqCst) {
                self.leave(world, &mut session).await?;
                self.kill(world);
                return Err(End::Dead);
            }
            if let Some(order) = world.broker.next(orders).map_err(|_| End::Lost)? {
                self.obey(world, &mut session, order).await?;
                continue;
            }
            if session.seat.is_none() {
                session.seat = self.subscribe(world, connection);
                if session.seat.is_none() && self.memory.lock().gate.parked_on().is_none() {
                    return Err(End::Lost);
                }
            }
            if let Some(seat) = session.seat
                && let Some(message) = world.broker.next(seat).map_err(|_| End::Lost)?
            {
                self.apply(world, connection, seat, message).await?;
                continue;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = life.changed() => {}
                () = sleep(LOOK), if session.seat.is_none() => {}
            }
        }
    }

    fn subscribe(&self, world: &World, connection: ConnectionId) -> Option<SubscriptionId> {
        let queue = self.memory.lock().gate.parked_on().unwrap_or(PRIMARY).to_owned();
        if queue == PRIMARY {
            world.invariants.before_consuming(world, self);
        }
        world.broker.consume(connection, &queue, PREFETCH)
    }

    async fn obey(&self, world: &World, session: &mut Session, message: Message) -> Result<(), End> {
        let broker = &world.broker;
        let acknowledge = |id: u64| broker.acknowledge(session.orders, id).map_err(|_| End::Lost);
        let Ok(order) = Order::from_slice(&message.body) else { return acknowledge(message.id) };
        if world.scenario.never_parks() && order.kind == OrderType::StartReplay {
            return acknowledge(message.id);
        }
        let before = self.memory.lock().gate.clone();
        let decision = self.memory.lock().gate.decide(order);
        match decision {
            Decision::Park { answer, .. } => {
                let left = self.leave(world, session).await;
                let seat = left.map(|()| self.subscribe(world, session.connection));
                if !matches!(seat, Ok(Some(_))) {
                    self.memory.lock().gate = before;
                }
                session.seat = seat?;
                if session.seat.is_none() {
                    return broker.acknowledge(session.orders, message.id).map_err(|_| End::Lost);
                }
                if let Some(superseded) = session.held.replace(message.id) {
                    broker.acknowledge(session.orders, superseded).map_err(|_| End::Lost)?;
                }
                self.answer(world, AnswerType::Parked, answer.as_ref());
                Ok(())
            }
            Decision::Resume { answer } => {
                self.leave(world, session).await?;
                session.seat = self.subscribe(world, session.connection);
                for order in session.held.take().into_iter().chain([message.id]) {
                    broker.acknowledge(session.orders, order).map_err(|_| End::Lost)?;
                }
                self.answer(world, AnswerType::Resumed, answer.as_ref());
                Ok(())
            }
            Decision::AnswerAgain(kind, fence) => {
                self.answer(world, kind, Some(&fence));
                if kind == AnswerType::Parked && session.held.is_none() {
                    session.held = Some(message.id);
                    return Ok(());
                }
                acknowledge(message.id)
            }
            Decision::Ignore => acknowledge(message.id),
        }
    }

    /// Ends the subscription with nothing unacknowledged.
    async fn leave(&self, world: &World, session: &mut Session) -> Result<(), End> {
        let Some(seat) = session.seat.take() else { return Ok(()) };
        world.broker.cancel(seat);
        while let Some(message) = world.broker.next(seat).map_err(|_| End::Lost)? {
            self.apply(world, session.connection, seat, message).await?;
        }
        Ok(())
    }

    async fn apply(
        &self,
        world: &World,
        connection: ConnectionId,
        seat: SubscriptionId,
        message: Message,
    ) -> Result<(), End> {
        sleep(WORK).await;
        self.awake().await?;
        if !world.broker.is_connected(connection) {
            return Err(End::Lost); // it comes again, and must not be applied twice
        }
        let number: u64 = String::from_utf8_lossy(&message.body).parse().unwrap();
        self.memory.lock().applied.push(number);
        world.invariants.applied(world, self, number);
        world.broker.acknowledge(seat, message.id).map_err(|_| End::Lost)
    }

    fn answer(&self, world: &World, kind: AnswerType, fence: Option<&Fence>) {
        let Some(fence) = fence else { return };
        let memory = self.memory.lock();
        let last = memory.applied.last().map(u64::to_string);
        let answer = answer(kind, fence, &self.pod, memory.applied.len() as u64, last);
        world.broker.publish(&fence.reply_to, answer.to_vec().unwrap());
    }
}
