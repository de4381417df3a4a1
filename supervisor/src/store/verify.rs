//! stub
use super::*;
/// r
pub struct R { /// r
pub records:u64, /// c
pub chains:u64 }
impl R { /// e
pub fn exit_code(&self)->u32{0} /// p
pub fn problems(&self)->Vec<String>{vec![]} }
/// v
pub async fn verify(_s:&dyn Store)->StoreResult<R>{ Ok(R{records:0,chains:0}) }
