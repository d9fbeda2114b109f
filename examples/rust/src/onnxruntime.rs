//! A graph in ONNX Runtime, on one thread of the CPU, by its C API.
//!
//! The API is a table of functions to whose end each version adds, so that places never change.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::mem::transmute;
use std::ptr::{null, null_mut};
use std::slice;

type Handle = *mut c_void;
type Status = *mut c_void;

#[repr(C)]
struct ApiBase {
    get_api: extern "C" fn(u32) -> *const *const c_void,
    get_version: extern "C" fn() -> *const c_char,
}

extern "C" {
    fn OrtGetApiBase() -> *const ApiBase;
}

/// Of the newest function below, of ONNX Runtime 1.18.
const API_VERSION: u32 = 18;
const LOG_FATAL: c_int = 4;
const ARENA_ALLOCATOR: c_int = 1;
const MEMORY_DEFAULT: c_int = 0;
const ELEMENT_FLOAT: c_int = 1;
const ELEMENT_INT64: c_int = 7;

type Create = unsafe extern "C" fn(*mut Handle) -> Status;
type CreateEnv = unsafe extern "C" fn(c_int, *const c_char, *mut Handle) -> Status;
type CreateSession = unsafe extern "C" fn(Handle, *const c_char, Handle, *mut Handle) -> Status;
type CreateSessionFromArray =
    unsafe extern "C" fn(Handle, *const c_void, usize, Handle, *mut Handle) -> Status;
type Run = unsafe extern "C" fn(
    Handle,
    Handle,
    *const *const c_char,
    *const Handle,
    usize,
    *const *const c_char,
    usize,
    *mut Handle,
) -> Status;
type Change = unsafe extern "C" fn(Handle) -> Status;
type SetThreads = unsafe extern "C" fn(Handle, c_int) -> Status;
type Count = unsafe extern "C" fn(Handle, *mut usize) -> Status;
type InputName = unsafe extern "C" fn(Handle, usize, Handle, *mut *mut c_char) -> Status;
type CreateTensor = unsafe extern "C" fn(
    Handle,
    *mut c_void,
    usize,
    *const i64,
    usize,
    c_int,
    *mut Handle,
) -> Status;
type Data = unsafe extern "C" fn(Handle, *mut *mut c_void) -> Status;
type Kind = unsafe extern "C" fn(Handle, *mut c_int) -> Status;
type Dimensions = unsafe extern "C" fn(Handle, *mut i64, usize) -> Status;
type Part = unsafe extern "C" fn(Handle, *mut Handle) -> Status;
type CreateMemory = unsafe extern "C" fn(c_int, c_int, *mut Handle) -> Status;
type Release = unsafe extern "C" fn(Handle);
type AddWeights = unsafe extern "C" fn(
    Handle,
    *const *const c_char,
    *const *const c_char,
    *const usize,
    usize,
) -> Status;
type Message = unsafe extern "C" fn(Status) -> *const c_char;

/// A function of the table, by its place and its type.
macro_rules! ort {
    ($place:literal, $kind:ty) => {
        transmute::<*const c_void, $kind>(*api()?.add($place))
    };
}

fn api() -> Result<*const *const c_void, String> {
    // SAFETY: the library's entry point takes nothing, and its result is never freed.
    let table = unsafe { ((*OrtGetApiBase()).get_api)(API_VERSION) };
    if table.is_null() {
        return Err(format!("ONNX Runtime is too old; its C API must be version {API_VERSION}"));
    }
    Ok(table)
}

unsafe fn check(status: Status) -> Result<(), String> {
    if status.is_null() {
        return Ok(());
    }
    let message = CStr::from_ptr(ort!(2, Message)(status)).to_string_lossy();
    Err(format!("ONNX Runtime: {}", message.lines().next().unwrap_or_default()))
}

pub fn version() -> String {
    // SAFETY: the library's own text.
    let version = unsafe { CStr::from_ptr(((*OrtGetApiBase()).get_version)()) };
    version.to_string_lossy().into_owned()
}

/// Where a graph is.
pub enum Graph {
    File(CString),
    /// The graph, and its weights under the names that it has for them.
    Memory(&'static [u8], Vec<(CString, &'static [u8])>),
}

pub struct Session {
    session: Handle,
    memory: Handle,
    inputs: Vec<CString>,
    output: CString,
}

impl Session {
    pub fn open(graph: &Graph, output: &str) -> Result<Self, String> {
        let output = CString::new(output).map_err(|_| "an output's name has a NUL in it")?;
        let (mut env, mut options, mut session, mut memory) =
            (null_mut(), null_mut(), null_mut(), null_mut());
        // SAFETY: each handle is made before it is used, and lives as long as the program.
        unsafe {
            check(ort!(3, CreateEnv)(LOG_FATAL, c"embed".as_ptr(), &mut env))?;
            check(ort!(10, Create)(&mut options))?;
            check(ort!(17, Change)(options))?; // no memory pattern
            check(ort!(24, SetThreads)(options, 1))?;
            match graph {
                Graph::File(path) => {
                    check(ort!(7, CreateSession)(env, path.as_ptr(), options, &mut session))?;
                }
                Graph::Memory(data, weights) => {
                    add(options, weights)?;
                    let data = (data.as_ptr().cast(), data.len());
                    let create = ort!(8, CreateSessionFromArray);
                    check(create(env, data.0, data.1, options, &mut session))?;
                }
            }
            check(ort!(69, CreateMemory)(ARENA_ALLOCATOR, MEMORY_DEFAULT, &mut memory))?;
            Ok(Self { session, memory, inputs: inputs(session)?, output })
        }
    }

    /// A text's vector.
    pub fn run(&self, ids: &[u32]) -> Result<Vec<f32>, String> {
        let mut rows = Vec::new();
        for name in &self.inputs {
            rows.push(match name.to_bytes() {
                b"input_ids" => ids.iter().map(|&id| i64::from(id)).collect(),
                b"attention_mask" => vec![1i64; ids.len()],
                b"token_type_ids" => vec![0; ids.len()],
                _ => {
                    return Err(format!("the graph has an input {name:?}, which is not known here"))
                }
            });
        }
        let names: Vec<_> = self.inputs.iter().map(|name| name.as_ptr()).collect();
        let shape = [1, ids.len() as i64];
        // SAFETY: the rows live longer than the tensors over them.
        unsafe {
            let mut values = Vec::new();
            for row in &mut rows {
                let mut value = null_mut();
                let create = ort!(49, CreateTensor);
                let data = row.as_mut_ptr().cast();
                let status = create(
                    self.memory,
                    data,
                    row.len() * 8,
                    shape.as_ptr(),
                    2,
                    ELEMENT_INT64,
                    &mut value,
                );
                check(status)?;
                values.push(value);
            }
            let mut output = null_mut();
            check(ort!(9, Run)(
                self.session,
                null_mut(),
                names.as_ptr(),
                values.as_ptr(),
                values.len(),
                &self.output.as_ptr(),
                1,
                &mut output,
            ))?;
            let vector = vector_of(output);
            for value in values.into_iter().chain([output]) {
                ort!(96, Release)(value);
            }
            vector
        }
    }
}

/// Weights of an archive, which ONNX Runtime reads in place.
unsafe fn add(options: Handle, weights: &[(CString, &'static [u8])]) -> Result<(), String> {
    if weights.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = weights.iter().map(|(name, _)| name.as_ptr()).collect();
    let contents: Vec<_> = weights.iter().map(|(_, data)| data.as_ptr().cast()).collect();
    let sizes: Vec<_> = weights.iter().map(|(_, data)| data.len()).collect();
    let add = ort!(279, AddWeights);
    check(add(options, names.as_ptr(), contents.as_ptr(), sizes.as_ptr(), weights.len()))
}

unsafe fn inputs(session: Handle) -> Result<Vec<CString>, String> {
    let (mut allocator, mut count) = (null_mut(), 0);
    check(ort!(78, Create)(&mut allocator))?;
    check(ort!(30, Count)(session, &mut count))?;
    let mut names = Vec::new();
    for place in 0..count {
        let mut name = null_mut();
        check(ort!(36, InputName)(session, place, allocator, &mut name))?;
        names.push(CStr::from_ptr(name).to_owned());
    }
    Ok(names)
}

/// The content of a float32 tensor `[1, dim]`.
unsafe fn vector_of(value: Handle) -> Result<Vec<f32>, String> {
    let (mut info, mut kind, mut axes, mut shape) = (null_mut(), 0, 0, [0i64; 2]);
    let mut data = null::<c_void>().cast_mut();
    check(ort!(65, Part)(value, &mut info))?;
    check(ort!(60, Kind)(info, &mut kind))?;
    check(ort!(61, Count)(info, &mut axes))?;
    if kind != ELEMENT_FLOAT || axes != 2 {
        return Err("the graph's output is no float32 [1, dim]".into());
    }
    check(ort!(62, Dimensions)(info, shape.as_mut_ptr(), 2))?;
    ort!(99, Release)(info);
    check(ort!(51, Data)(value, &mut data))?;
    let vector = slice::from_raw_parts(data.cast::<f32>(), shape[1] as usize).to_vec();
    if vector.iter().any(|component| !component.is_finite()) {
        return Err("the vector has NaN or infinity in it".into());
    }
    Ok(vector)
}
