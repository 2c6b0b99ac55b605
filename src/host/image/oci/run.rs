//! What a configuration says of how the image is run, as Docker writes it and the OCI took it over.
//! Pure.
//!
//! Much of it is `null`, and everything may be missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::DocumentError;
use crate::model::{ImageConfig, MAX_CONFIG_BYTES};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::host::image) struct Run {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed_ports: Option<Keys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Words>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Words>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<Keys>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
}

/// A set, as these documents write one: the values are empty objects.
type Keys = BTreeMap<String, serde_json::Value>;

/// Old tools wrote one word as it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Words {
    Many(Vec<String>),
    One(String),
}

impl Run {
    pub(in crate::host::image) fn into_config(self) -> Result<ImageConfig, DocumentError> {
        let words = |words: Option<Words>| match words {
            None => vec![],
            Some(Words::Many(words)) => words,
            Some(Words::One(word)) => vec![word],
        };
        let keys = |keys: Option<Keys>| keys.unwrap_or_default().into_keys().collect();
        let variable = |text: String| {
            let (name, value) = text.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        };
        let config = ImageConfig {
            entrypoint: words(self.entrypoint),
            cmd: words(self.cmd),
            env: self.env.unwrap_or_default().into_iter().filter_map(variable).collect(),
            user: self.user.unwrap_or_default(),
            workdir: self.working_dir.unwrap_or_default(),
            stop_signal: self.stop_signal.unwrap_or_default(),
            ports: keys(self.exposed_ports),
            volumes: keys(self.volumes),
            labels: self.labels.unwrap_or_default().into_iter().collect(),
        };
        check(&config)?;
        Ok(config)
    }
}

impl From<&ImageConfig> for Run {
    fn from(config: &ImageConfig) -> Self {
        let said = |text: &String| (!text.is_empty()).then(|| text.clone());
        let words = |words: &[String]| (!words.is_empty()).then(|| Words::Many(words.to_vec()));
        let empty = || serde_json::Value::Object(serde_json::Map::new());
        let keys = |names: &[String]| {
            let keys = || names.iter().map(|name| (name.clone(), empty())).collect();
            (!names.is_empty()).then(keys)
        };
        let env = config.env.iter().map(|(name, value)| format!("{name}={value}"));
        let labels = || config.labels.iter().cloned().collect();
        Self {
            user: said(&config.user),
            exposed_ports: keys(&config.ports),
            env: (!config.env.is_empty()).then(|| env.collect()),
            entrypoint: words(&config.entrypoint),
            cmd: words(&config.cmd),
            volumes: keys(&config.volumes),
            working_dir: said(&config.workdir),
            labels: (!config.labels.is_empty()).then(labels),
            stop_signal: said(&config.stop_signal),
        }
    }
}

/// What could not be handed to a program, and what would not fit.
fn check(config: &ImageConfig) -> Result<(), DocumentError> {
    let bytes = config.bytes();
    if bytes > MAX_CONFIG_BYTES {
        return Err(DocumentError::RunTooLong(bytes));
    }
    let words = config.entrypoint.iter().chain(&config.cmd);
    let values = config.env.iter().flat_map(|(name, value)| [name, value]);
    let places = [&config.user, &config.workdir, &config.stop_signal];
    let mut all = words.chain(values).chain(places).chain(&config.volumes);
    match all.find(|text| text.contains('\0')) {
        Some(text) => Err(DocumentError::Nul(text.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ImageConfig, DocumentError> {
        serde_json::from_str::<Run>(text).unwrap().into_config()
    }

    #[test]
    fn what_is_null_or_missing_is_not_said() {
        assert_eq!(parse("{}").unwrap(), ImageConfig::default());
        let nulls = r#"{"User": null, "ExposedPorts": null, "Env": null, "Entrypoint": null,
            "Cmd": null, "Volumes": null, "WorkingDir": null, "Labels": null, "StopSignal": null,
            "OnBuild": null, "Healthcheck": {"Test": ["NONE"]}}"#;
        assert_eq!(parse(nulls).unwrap(), ImageConfig::default());
    }

    #[test]
    fn what_is_said_is_kept_and_written_as_it_was_read() {
        let text = r#"{"User": "101:101", "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "Env": ["A=b=c", "EMPTY=", "NOTHING", "=x"], "Entrypoint": "/entry",
            "Cmd": ["serve", "-v"], "Volumes": {"/data": {}}, "WorkingDir": "/srv",
            "Labels": {"l": "v"}, "StopSignal": "SIGQUIT"}"#;
        let config = parse(text).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(config.env, [pair("A", "b=c"), pair("EMPTY", "")]);
        assert_eq!(
            (config.entrypoint.as_slice(), config.cmd.len()),
            (&["/entry".to_owned()][..], 2)
        );
        assert_eq!(config.ports, ["443/tcp", "80/tcp"]);
        assert_eq!((config.user.as_str(), config.workdir.as_str()), ("101:101", "/srv"));
        let again = serde_json::to_string(&Run::from(&config)).unwrap();
        assert_eq!(parse(&again).unwrap(), config);
        assert_eq!(serde_json::to_string(&Run::from(&ImageConfig::default())).unwrap(), "{}");
    }

    #[test]
    fn what_cannot_be_run_or_is_too_much_is_refused() {
        let error = parse("{\"Cmd\": [\"a\\u0000b\"]}").unwrap_err().to_string();
        assert!(error.contains("a\\0b") && error.contains("NUL"), "{error}");
        let long = format!("{{\"Labels\": {{\"l\": \"{}\"}}}}", "x".repeat(MAX_CONFIG_BYTES));
        let error = parse(&long).unwrap_err().to_string();
        assert!(error.contains("262145 bytes"), "{error}");
    }
}
