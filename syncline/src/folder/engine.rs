//! The folder at work: one thread that looks, decides ([`super::plan`]) and acts.
//!
//! The thread sleeps on its [`Inbox`]. What it wakes for is a set of files; each goes through
//! *rounds*: read what the replica holds, look at the disk, decide, do the step; until there is
//! nothing more to do. Every step is durable before the next one relies on it, so a kill between
//! any two of them loses nothing.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use sync_core::{model::Hash, store::Position};
use tokio::runtime::Handle;

use super::{
    apply::Workshop,
    guard::{Guard, Permission},
    ignore::IgnoreRules,
    key::FileKey,
    plan::Mode,
    problem::Problems,
    replica::{FolderReplica, ReplicaError, WriteRight},
    scan::{self, Look},
    state::{FolderState, RootId},
    watch::{Due, FolderWatcher, Inbox},
};

/// Files are worked on so many at a time.
pub(super) const CHUNK: usize = 512;

/// Everything is looked at this often, for what the system did not tell.
pub const RESCAN: Duration = Duration::from_secs(60);

/// What could not be written is tried again after this long: space may have been made.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// After an error that is about no single file, everything is looked at again after this long.
const AFTER_ERROR: Duration = Duration::from_secs(3);

/// While the folder is gone, it is looked for this often.
const LOOK_FOR_ROOT: Duration = Duration::from_secs(1);

/// The subject of problems of the whole folder.
pub(super) const FOLDER: &str = "the folder";

/// The subject of the problem that this node may not write any more.
pub(super) const RIGHT: &str = "the right to write";

/// The subject of the problem that changes are not seen at once.
pub(super) const WATCHING: &str = "watching the folder";

/// What a folder needs to know.
#[derive(Debug, Clone)]
pub struct FolderOptions {
    /// The folder, absolute.
    pub root: PathBuf,
    /// Where its state is kept.
    pub state: PathBuf,
    /// What the state belongs to: the store's id.
    pub lifetime: [u8; 16],
    /// Whether the user's changes are to be written to the replica, as long as this node may.
    pub mode: Mode,
    /// Whether a mass deletion is meant.
    pub permission: Permission,
}

/// A running folder. Stops when it is dropped.
#[derive(Debug)]
pub struct Folder {
    inbox: Inbox,
    problems: Problems,
    follows: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Folder {
    /// Starts to keep the folder and the replica equal.
    pub fn start(options: FolderOptions, replica: Arc<dyn FolderReplica>, inbox: Inbox) -> io::Result<Self> {
        let engine = Engine::open(options, replica, inbox.clone())?;
        let (problems, follows) = (engine.problems.clone(), engine.follows.clone());
        let thread = std::thread::Builder::new().name("folder".into()).spawn(move || engine.run())?;
        Ok(Self { inbox, problems, follows, thread: Some(thread) })
    }

    /// Whether the user's changes are written to the replica now.
    pub fn mode(&self) -> Mode {
        if self.follows.load(Ordering::Relaxed) { Mode::ReadOnly } else { Mode::ReadWrite }
    }

    /// What stands in its way.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Ends the work and waits for it: at most one chunk of files.
    pub fn stop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

/// Why the work on a folder stopped for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

pub(super) struct Engine {
    pub(super) options: FolderOptions,
    pub(super) replica: Arc<dyn FolderReplica>,
    pub(super) runtime: Handle,
    pub(super) inbox: Inbox,
    pub(super) state: FolderState,
    pub(super) rules: IgnoreRules,
    pub(super) guard: Guard,
    pub(super) workshop: Workshop,
    pub(super) problems: Problems,
    pub(super) watcher: Option<FolderWatcher>,
    /// The position in the replica's change log up to which everything was looked at.
    pub(super) position: Position,
    /// Files that are gone from disk and not yet deleted in the replica.
    pub(super) gone: BTreeSet<FileKey>,
    /// When the guard wants to be asked again.
    pub(super) ask_again: Option<Instant>,
    /// Files whose content is not here yet.
    pub(super) waiting: HashMap<Hash, BTreeSet<FileKey>>,
    /// Files to be worked on that somebody is writing: they are, when that is over.
    pub(super) being_written: BTreeSet<FileKey>,
    /// Files that something is in the way of.
    pub(super) clashes: BTreeSet<FileKey>,
    /// Files that could not be written, and when that is tried again.
    pub(super) unwritten: BTreeSet<FileKey>,
    pub(super) retry_at: Option<Instant>,
    /// The number of the last import, and whether the one noted in the replica was taken up.
    pub(super) imports: u64,
    took_up: bool,
    /// Nothing is written to the replica: it is not wanted, or not allowed.
    follows: Arc<AtomicBool>,
    /// The folder is gone or another one is in its place.
    pub(super) paused: bool,
}

impl Engine {
    fn open(options: FolderOptions, replica: Arc<dyn FolderReplica>, inbox: Inbox) -> io::Result<Self> {
        let state = FolderState::open(&options.state, options.lifetime)?;
        Ok(Self {
            replica,
            runtime: Handle::current(),
            inbox,
            rules: IgnoreRules::new(&options.root),
            guard: Guard::new(options.permission),
            workshop: Workshop::open(&options.root)?,
            problems: Problems::default(),
            watcher: None,
            position: Position(0),
            gone: BTreeSet::new(),
            ask_again: None,
            waiting: HashMap::new(),
            being_written: BTreeSet::new(),
            clashes: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            retry_at: None,
            imports: state.imports(),
            took_up: false,
            state,
            follows: Arc::new(AtomicBool::new(options.mode == Mode::ReadOnly)),
            paused: false,
            options,
        })
    }

    fn run(mut self) {
        self.inbox.look_at_everything();
        let mut rescan = Instant::now() + RESCAN;
        while !self.inbox.is_stopped() {
            let deadline = [self.ask_again, self.retry_at].into_iter().flatten().fold(rescan, Instant::min);
            let mut due = self.inbox.wait(deadline);
            if due.stop {
                break;
            }
            let now = Instant::now();
            due.everything |= now >= rescan;
            if let Some(problem) = &due.problem {
                self.watching_failed(problem);
            }
            match self.work(&mut due) {
                Ok(()) => self.problems.clear(FOLDER),
                Err(error) => {
                    let (cause, advice) = (error.to_string(), "it is tried again every few seconds");
                    self.problems.raise_until(FOLDER, cause, advice, Some(SystemTime::now() + AFTER_ERROR));
                    // The look at everything finds what these are about.
                    (self.ask_again, self.retry_at) = (None, None);
                    rescan = now + AFTER_ERROR;
                    continue;
                }
            }
            if self.paused {
                rescan = now + LOOK_FOR_ROOT;
            } else if due.everything {
                rescan = now + RESCAN;
            }
        }
        // What could not be written now is found again by the next start's scan.
        let _ = self.state.sync();
        self.workshop.tidy();
    }

    fn work(&mut self, due: &mut Due) -> Result<(), EngineError> {
        if !self.root_is_there()? {
            return Ok(());
        }
        if !self.took_up {
            self.settle_what_is_left()?;
            self.take_up_last_import()?;
            self.took_up = true;
        }
        due.everything |= self.right_has_changed()?;
        if due.everything {
            self.look_at_everything()?;
        }
        if !due.paths.is_empty() {
            let keys = self.keys_at(&due.paths);
            self.process(keys)?;
        }
        if due.replica {
            self.follow_replica()?;
        }
        if !due.contents.is_empty() {
            let arrived = due.contents.iter().filter_map(|hash| self.waiting.remove(hash)).flatten().collect();
            self.process(arrived)?;
        }
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            let unwritten = std::mem::take(&mut self.unwritten);
            self.process(unwritten)?;
        }
        self.delete_what_is_gone()?;
        self.state.flush()?;
        self.workshop.tidy();
        Ok(())
    }

    /// Whether what the user changes is written to the replica.
    pub(super) fn mode(&self) -> Mode {
        if self.follows.load(Ordering::Relaxed) { Mode::ReadOnly } else { Mode::ReadWrite }
    }

    /// Looks whether this node may write. What was changed here while it might not is put when it may again.
    fn right_has_changed(&mut self) -> Result<bool, EngineError> {
        if self.options.mode == Mode::ReadOnly {
            return Ok(false);
        }
        let right = self.runtime.block_on(self.replica.right())?;
        if right == WriteRight::Ended {
            let cause = "it has ended: what is changed here stays here, what others change still comes";
            self.problems.raise(
                RIGHT,
                cause,
                "ask the owner for a new ticket, and take it with `syncline join TICKET`",
            );
        } else {
            self.problems.clear(RIGHT);
        }
        let follows = right != WriteRight::Held;
        Ok(self.follows.swap(follows, Ordering::Relaxed) != follows)
    }

    /// Whether the folder is there, and is the one that it was. While it is not, nothing is done.
    fn root_is_there(&mut self) -> Result<bool, EngineError> {
        let subject = self.options.root.display().to_string();
        let id = match RootId::of(&self.options.root) {
            Ok(id) => id,
            Err(error) => {
                self.pause(
                    &subject,
                    &format!("the folder is gone ({error})"),
                    "mount it or bring it back; nothing is deleted elsewhere meanwhile",
                );
                return Ok(false);
            }
        };
        if self.state.root() != Some(id) {
            if self.state.root().is_some() && !self.state.is_empty() && self.options.permission == Permission::Ask {
                let root = &self.options.root;
                let gone = self.state.keys().filter(|key| scan::look(root, key) == Look::Absent).count();
                if gone * 2 > self.state.len() {
                    let cause =
                        format!("another directory is in its place, and {gone} of {} files are gone", self.state.len());
                    self.pause(&subject, &cause, "mount the folder; if the files are to be deleted everywhere, start again with --allow-mass-delete");
                    return Ok(false);
                }
            }
            self.state.set_root(id);
            self.watcher = None;
        }
        if self.paused {
            self.paused = false;
            self.problems.clear(&subject);
            self.inbox.look_at_everything();
            self.watcher = None;
        }
        if self.watcher.is_none() {
            // Before the first look, so that nothing falls between the two.
            match FolderWatcher::start(&self.options.root, &self.inbox) {
                Ok(watcher) => {
                    self.watcher = Some(watcher);
                    self.problems.clear(WATCHING);
                }
                Err(error) => self.watching_failed(&error.to_string()),
            }
        }
        Ok(true)
    }

    fn pause(&mut self, subject: &str, cause: &str, advice: &str) {
        self.paused = true;
        // What is due waits until the folder is back, and is found by the look at everything then.
        (self.ask_again, self.retry_at) = (None, None);
        self.problems.raise(subject, cause, advice);
    }

    fn watching_failed(&self, problem: &str) {
        let cause = format!("changes are not seen at once: {problem}");
        let advice = "raise fs.inotify.max_user_watches; until then the folder is looked at every minute";
        self.problems.raise(WATCHING, cause, advice);
    }
}
