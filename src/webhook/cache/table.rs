//! One index behind a lock, replaced as a whole when its watch starts over. No I/O.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};

/// Facts about objects of one kind, found by hash.
pub trait Index: Default + Send + Sync + 'static {
    /// What the watch delivers.
    type Object: Send;

    /// Takes in an object, in place of its former version.
    fn insert(&mut self, object: Self::Object);
    /// Forgets an object.
    fn remove(&mut self, object: &Self::Object);
}

/// An index that readers share.
#[derive(Default)]
pub struct Table<I> {
    index: RwLock<I>,
    synced: AtomicBool,
    /// The watch was interrupted and nothing has come since.
    interrupted: AtomicBool,
}

impl<I: Index> Table<I> {
    /// Hold it for one look-up.
    pub fn read(&self) -> RwLockReadGuard<'_, I> {
        self.index.read()
    }

    /// True once everything that there is has been read.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// False where the watch has had no word since an error: something may have been missed.
    pub fn is_fresh(&self) -> bool {
        self.is_synced() && !self.interrupted.load(Ordering::Acquire)
    }

    pub fn insert(&self, object: I::Object) {
        self.index.write().insert(object);
        self.interrupted.store(false, Ordering::Release);
    }

    pub fn remove(&self, object: &I::Object) {
        self.index.write().remove(object);
        self.interrupted.store(false, Ordering::Release);
    }

    /// All that there is, in place of all that was.
    pub fn replace(&self, objects: impl IntoIterator<Item = I::Object>) {
        let mut index = I::default();
        for object in objects {
            index.insert(object);
        }
        self.swap(index);
    }

    pub(super) fn swap(&self, index: I) {
        let former = std::mem::replace(&mut *self.index.write(), index);
        self.interrupted.store(false, Ordering::Release);
        self.synced.store(true, Ordering::Release);
        drop(former); // outside the lock
    }

    pub(super) fn interrupted(&self) {
        self.interrupted.store(true, Ordering::Release);
    }
}
