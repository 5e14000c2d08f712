//! Makes the node able to restore: the OCI runtime, containerd's handler for it, CRIU's settings for runc.
//!
//! Guarantees: each file is written only if it differs, atomically, and root only writes it; a user's own files are
//! never edited unless that was asked for; containerd is restarted only if it started before its configuration changed,
//! on one node of the cluster at a time, and while it makes no container, if it ever makes none; repeating it changes nothing.

mod containerd;
mod criu;
mod imports;
mod quiet;
mod restart;
mod turn;

pub use containerd::{effective as effective_config, has_systemd_cgroups};
pub use turn::Turns;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::engine::Engine;
use super::host::{Host, HostError};
use restart::RestartError;
use turn::TurnError;

/// Where the OCI runtime goes on the node.
pub const RUNTIME: &str = "/opt/shadow/bin/shadow-runc";
/// The folder is made with.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// The node could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{} on the node: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("containerd: {0}")]
    Containerd(String),
    #[error(transparent)]
    Restart(#[from] RestartError),
    #[error(transparent)]
    Turn(#[from] TurnError),
}

/// The node that is prepared.
pub struct Site {
    pub host: Host,
    pub engine: Engine,
    /// Where there is a cluster whose other nodes must not restart their containerd at the same time.
    pub turns: Option<Turns>,
}

/// What the install needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct InstallArgs {
    /// The OCI runtime in our image, copied to the node.
    #[arg(long, default_value = "/shadow-runc")]
    runtime_binary: PathBuf,
    /// Leave the node as it is.
    #[arg(long)]
    no_install: bool,
    /// Add the import of drop-ins to the node's containerd configuration where it is missing.
    #[arg(long)]
    edit_containerd_config: bool,
}

/// Prepares the node; when it returns, pods of RuntimeClass `shadow` can start on it.
pub async fn install(site: &Site, args: &InstallArgs) -> Result<(), InstallError> {
    if args.no_install {
        return Ok(());
    }
    let runtime = fs::read(&args.runtime_binary)
        .map_err(|source| InstallError::File { path: args.runtime_binary.clone(), source })?;
    let files = Files { host: &site.host };
    if files.write(Path::new(RUNTIME), &runtime, 0o755)? {
        tracing::info!(path = RUNTIME, "runtime installed");
    }
    criu::configure(&files)?;
    containerd::configure(site, &files, args.edit_containerd_config).await
}

/// Files of the node, whatever symbolic links its folders are.
pub struct Files<'a> {
    host: &'a Host,
}

impl Files<'_> {
    /// Writes the file if it differs; true if it did.
    pub fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<bool, InstallError> {
        let at = |source| InstallError::File { path: path.to_owned(), source };
        let (folder, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
        let folder = self.folder(folder).map_err(at)?;
        let place = reach(&folder).join(name);
        let same_mode = |file: &Path| file.metadata().is_ok_and(|m| m.permissions().mode() & 0o777 == mode);
        if fs::read(&place).is_ok_and(|present| present == content) && same_mode(&place) {
            return Ok(false);
        }
        let mut new = name.to_owned();
        new.push(".shadow-new");
        let new = reach(&folder).join(new);
        let written = (|| {
            let mut file =
                fs::File::options().write(true).create(true).truncate(true).mode(mode).open(&new)?;
            io::Write::write_all(&mut file, content)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            fs::rename(&new, &place)
        })();
        written.map(|()| true).map_err(at)
    }

    /// The file's text; nothing if there is none.
    pub fn read(&self, path: &Path) -> Result<Option<String>, InstallError> {
        let at = |source| InstallError::File { path: path.to_owned(), source };
        match self.open(path, OFlags::RDONLY) {
            Ok(file) => io::read_to_string(fs::File::from(file)).map(Some).map_err(at),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(error)),
        }
    }

    /// Removes the file, if there is one.
    pub fn remove(&self, path: &Path) -> Result<(), InstallError> {
        let at = |source| InstallError::File { path: path.to_owned(), source };
        let (folder, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
        let removed = self.folder(folder).and_then(|folder| fs::remove_file(reach(&folder).join(name)));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(error)),
            _ => Ok(()),
        }
    }

    /// When the file was last written; nothing if there is none.
    pub fn modified(&self, path: &Path) -> Result<Option<std::time::SystemTime>, InstallError> {
        let at = |source| InstallError::File { path: path.to_owned(), source };
        match self.open(path, OFlags::PATH) {
            Ok(file) => fs::metadata(reach(&file)).and_then(|m| m.modified()).map(Some).map_err(at),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(error)),
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let directory = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, self.host.root(), directory, Mode::empty())?;
        // Links are followed as the node would follow them.
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
    }

    /// The folder, made where it is missing.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path, OFlags::DIRECTORY | OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let parent = self.folder(parent)?;
            match rustix::fs::mkdirat(parent.as_fd(), name, FOLDER_MODE) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.open(path, OFlags::DIRECTORY | OFlags::PATH)
    }
}

fn reach(open: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", open.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_through_the_nodes_own_links() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/var", root.path().join("opt")).unwrap(); // absolute, as the node sees it
        let host = Host::at(root.path());
        let files = Files { host: &host };
        let path = Path::new("/opt/shadow/bin/x");
        assert_eq!(files.read(path).unwrap(), None);
        assert!(files.write(path, b"1", 0o755).unwrap());
        assert!(!files.write(path, b"1", 0o755).unwrap());
        assert!(files.write(path, b"2", 0o755).unwrap());
        assert_eq!(files.read(path).unwrap().as_deref(), Some("2"));
        let real = root.path().join("var/shadow/bin/x");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(files.modified(path).unwrap().is_some());
        assert_eq!(fs::read_dir(real.parent().unwrap()).unwrap().count(), 1);
    }
}
