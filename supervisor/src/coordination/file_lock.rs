//! temporary
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use async_trait::async_trait;
use autopack_shared::domain::ids::WorkerId;
use autopack_shared::runtime::clock::Clock;
use super::*;
/// t
pub struct FileCoordinator { lock: File, repo: File, data: String, sessions: Mutex<HashMap<WorkerId,String>>, held: Mutex<HashMap<LockName,LockOwner>> }
impl FileCoordinator {
 /// t
 pub fn open(data: &Path, root: &Path, _c: Arc<dyn Clock>) -> Result<Self, CoordinationError> {
  let bad=|e: std::io::Error| CoordinationError::Unusable{path:data.display().to_string(),why:e.to_string()};
  std::fs::create_dir_all(data.join("locks")).map_err(bad)?; std::fs::create_dir_all(root).map_err(bad)?;
  std::fs::write(data.join(".gitignore"),"*\n").map_err(bad)?;
  let o=|p: std::path::PathBuf| File::options().create(true).truncate(false).write(true).read(true).open(p).map_err(bad);
  Ok(Self{lock:o(data.join("autopack.lock"))?,repo:o(root.join("repo.lock"))?,data:data.display().to_string(),sessions:Default::default(),held:Default::default()})
 }
}
#[async_trait]
impl Coordinator for FileCoordinator {
 async fn campaign(&self,_r:&str)->Result<(),CoordinationError>{ for f in [&self.lock,&self.repo] { fs2::FileExt::try_lock_exclusive(f).map_err(|_|CoordinationError::DataDirLocked{path:self.data.clone(),holder:"?".into()})?; } Ok(()) }
 async fn is_director(&self)->Result<bool,CoordinationError>{Ok(true)}
 async fn resign(&self)->Result<(),CoordinationError>{ let _=fs2::FileExt::unlock(&self.lock); let _=fs2::FileExt::unlock(&self.repo); Ok(())}
 async fn open_session(&self,w:&WorkerId,s:&str)->Result<(),CoordinationError>{self.sessions.lock().expect("x").insert(w.clone(),s.into());Ok(())}
 async fn renew_session(&self,_w:&WorkerId,_s:&str)->Result<bool,CoordinationError>{Ok(true)}
 async fn close_session(&self,w:&WorkerId,_s:&str)->Result<(),CoordinationError>{self.sessions.lock().expect("x").remove(w);Ok(())}
 async fn session_alive(&self,_w:&WorkerId,_s:&str)->Result<bool,CoordinationError>{Ok(true)}
 async fn lock(&self,n:&[LockName],o:&LockOwner)->Result<(),CoordinationError>{for x in n{self.held.lock().expect("x").insert(x.clone(),o.clone());}Ok(())}
 async fn unlock(&self,n:&[LockName],_o:&LockOwner)->Result<(),CoordinationError>{for x in n{self.held.lock().expect("x").remove(x);}Ok(())}
 async fn holder(&self,n:&LockName)->Result<Option<LockOwner>,CoordinationError>{Ok(self.held.lock().expect("x").get(n).cloned())}
}
