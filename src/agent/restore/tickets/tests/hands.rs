//! Processes that only a test knows of.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::agent::failure::Failure;
use crate::agent::restore::processes::Processes;

/// One restored container, as the engine and the kernel know it.
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub is_unheard: bool,
    pub let_go: u32,
    pub end: Option<i32>,
    pub killed: bool,
}

/// Processes that only a test knows of. Every container lives, and the engine has it on record, but for what is said here.
#[derive(Default)]
pub struct Hands {
    lives: watch::Sender<BTreeMap<String, Life>>,
}

impl Hands {
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Life)) {
        self.lives.send_modify(|lives| change(lives.entry(id.to_owned()).or_default()));
    }

    pub fn of(&self, id: &str) -> Life {
        self.lives.borrow().get(id).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Processes for Hands {
    fn has_started(&self, id: &str) -> bool {
        !self.of(id).is_unheard
    }

    fn lives(&self, id: &str) -> bool {
        self.of(id).end.is_none()
    }

    async fn let_go(&self, id: &str) -> Result<(), Failure> {
        self.change(id, |life| life.let_go += 1);
        Ok(())
    }

    async fn ended(&self, id: &str) -> Option<i32> {
        let mut lives = self.lives.subscribe();
        let ended =
            lives.wait_for(|lives| lives.get(id).is_some_and(|life| life.end.is_some())).await.unwrap();
        ended[id].end
    }

    async fn kill(&self, id: &str) -> Result<(), Failure> {
        self.change(id, |life| (life.killed, life.end) = (true, Some(137)));
        Ok(())
    }
}
