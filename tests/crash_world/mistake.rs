//! Mistakes that can be put into the world, to show that the test can fail.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The API server takes a write that is bound to an older version.
    StoreIgnoresVersions,
    /// In a crash the API server loses the journal that it had confirmed.
    StoreLosesJournal,
    /// Agents obey orders of attempts that are over.
    AgentsIgnoreFences,
    /// In a crash the agents lose their folder.
    AgentsLoseTheirFolder,
    /// The dump is taken while the process works.
    DumpWithoutFreeze,
    /// What is reported as the restored shadow is a fresh process.
    FreshShadow,
    /// Restores do not leave their process standing still.
    RestoreLetsRun,
    /// One container of a pod is let go before the last is back.
    PartLetGoEarly,
    /// A pod whose init container was completed without running starts fresh.
    FreshWithoutInit,
    /// The source's node drops its dump when the source is killed.
    DumpDroppedAtKill,
}
