//! A bundle's text tower: its tokenizer, its graph and its limit.

use std::ffi::CString;

use crate::c::{Bundle, Json, Tokenizer};
use crate::onnxruntime::{Graph, Session};

pub struct Embedder {
    tokenizer: Tokenizer,
    session: Session,
    prompt: &'static str,
    most: usize,
    cut_left: bool,
}

pub struct Embedding {
    pub ids: Vec<u32>,
    pub vector: Vec<f32>,
}

impl Embedder {
    /// Opens a folder or a package. Without a name it takes fp32, or the only precision.
    pub fn open(path: &str, variant: Option<&str>) -> Result<Self, String> {
        let bundle = Bundle::open(path)?;
        let manifest = bundle.json("fmrt.json");
        let tower = members(manifest, "towers")
            .find(|tower| is(tower, "modality", "text"))
            .ok_or("the bundle embeds no texts")?;
        let input = tower.get("input").ok_or("fmrt.json has no input of its tower")?;
        let flag = |name| input.get(name).is_some_and(Json::is_true);
        if flag("pad_to_max_length") || !flag("include_prompt") {
            return Err(
                "the model pads its texts or leaves its prompt out, which is not done here".into(),
            );
        }
        let chosen = choose(manifest, variant)?;
        Ok(Self {
            tokenizer: Tokenizer::open(bundle.json("tokenizer.json")),
            session: Session::open(&graph(&bundle, chosen)?, text(tower, "embedding_output")?)?,
            prompt: default_prompt(input)?,
            most: whole(input, "max_length")?,
            cut_left: is(input, "truncation_side", "left"),
        })
    }

    pub fn embed(&self, text: &str, truncate: bool) -> Result<Embedding, String> {
        let ids = self.ids(text, truncate)?;
        let vector = self.session.run(&ids)?;
        Ok(Embedding { ids, vector })
    }

    fn ids(&self, text: &str, truncate: bool) -> Result<Vec<u32>, String> {
        let (before, after) = self.tokenizer.around();
        let around = before.len() + after.len();
        let mut own = self.tokenizer.encode(&format!("{}{text}", self.prompt));
        let room =
            self.most.checked_sub(around).ok_or("max_length has no room for special tokens")?;
        if own.len() > room && !truncate {
            let (found, most) = (own.len() + around, self.most);
            return Err(format!(
                "the text has {found} tokens, and the model takes {most}; --truncate cuts it"
            ));
        }
        if self.cut_left {
            own.drain(..own.len().saturating_sub(room));
        }
        own.truncate(room);
        let ids = [before, own, after].concat();
        if ids.is_empty() {
            return Err("the text has no tokens".into());
        }
        Ok(ids)
    }
}

fn members<'a>(object: &'a Json, name: &str) -> impl Iterator<Item = &'static Json> + 'a {
    object.get(name).into_iter().flat_map(Json::members)
}

fn is(object: &Json, name: &str, value: &str) -> bool {
    object.get(name).and_then(Json::text) == Some(value)
}

fn text(object: &Json, name: &str) -> Result<&'static str, String> {
    object.get(name).and_then(Json::text).ok_or_else(|| format!("fmrt.json: {name} is no text"))
}

fn whole(object: &Json, name: &str) -> Result<usize, String> {
    object.get(name).and_then(Json::whole).ok_or_else(|| format!("fmrt.json: {name} is no number"))
}

/// The variant of a name; without one that of fp32, one made for CPUs before a portable one.
fn choose(manifest: &Json, name: Option<&str>) -> Result<&'static Json, String> {
    let fits = |one: &&Json| {
        let provider = ["cpu", "any"].iter().any(|provider| is(one, "provider", provider));
        provider && is(one, "modality", "text")
    };
    let all: Vec<_> = members(manifest, "variants").filter(fits).collect();
    let rank = |one: &&&Json| (is(one, "precision", "fp32"), is(one, "provider", "cpu"));
    let named = |one: &&&Json| name.map_or(true, |name| is(one, "name", name));
    let best = all.iter().filter(named).max_by_key(rank).ok_or_else(|| {
        format!("the bundle has no variant {} for texts on CPUs; see fmrt info", name.unwrap_or(""))
    })?;
    let precision = text(best, "precision")?;
    if name.is_none()
        && precision != "fp32"
        && !all.iter().all(|one| is(one, "precision", precision))
    {
        return Err(
            "the bundle has several precisions and no fp32; name a variant, see fmrt info".into()
        );
    }
    Ok(best)
}

fn default_prompt(input: &Json) -> Result<&'static str, String> {
    let Some(name) = input.get("default_prompt_name").and_then(Json::text) else { return Ok("") };
    let prompt =
        members(input, "prompts").find(|prompt| prompt.name() == name).and_then(Json::text);
    prompt.ok_or_else(|| "fmrt.json: its default prompt is not among its prompts".into())
}

/// A variant's graph, whose files have the sizes that the manifest states.
fn graph(bundle: &Bundle, variant: &Json) -> Result<Graph, String> {
    let file = text(variant, "file")?;
    let data = checked(bundle, file, variant)?;
    let mut weights = Vec::new();
    for about in members(variant, "external") {
        let content = checked(bundle, about.name(), about)?;
        let name = about.name().rsplit('/').next().unwrap_or_default();
        weights.push((CString::new(name).map_err(|e| e.to_string())?, content));
    }
    Ok(bundle.path_of(file).map_or(Graph::Memory(data, weights), Graph::File))
}

fn checked(bundle: &Bundle, name: &str, about: &Json) -> Result<&'static [u8], String> {
    let data = bundle.read(name);
    if data.len() != whole(about, "size")? {
        return Err(format!("{name} has another size than fmrt.json says; copy the bundle again"));
    }
    Ok(data)
}
