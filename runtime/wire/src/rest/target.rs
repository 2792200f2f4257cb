//! The target of an inference request, from its path.

use compact_str::CompactString;
use http::Method;
use http::request::Parts;

/// The model and version that an inference request is for.
pub struct Target {
    /// The API of the request.
    pub api: Api,
    /// The name of the model.
    pub model: CompactString,
    /// A version number or a label; empty for the default version.
    pub version: CompactString,
}

/// An inference API.
#[derive(Clone, Copy, PartialEq)]
pub enum Api {
    /// `/v2/models/MODEL[/versions/VERSION]/infer`
    OpenInference,
    /// `/v1/models/MODEL[/versions/NUMBER|/labels/LABEL]:predict`
    TensorflowServing,
}

/// The prefix and suffix of each API's paths.
const APIS: [(Api, &str, &str); 2] =
    [(Api::OpenInference, "/v2/models/", "/infer"), (Api::TensorflowServing, "/v1/models/", ":predict")];

impl Target {
    /// Returns the target of a request; None unless it is a POST whose names are ASCII without reserved characters.
    pub fn of(parts: &Parts) -> Option<Target> {
        let inside = |(api, begin, end): &(Api, &str, &str)| {
            Some((*api, parts.uri.path().strip_prefix(begin)?.strip_suffix(end)?))
        };
        let (api, path) = APIS.iter().find_map(inside)?;
        let (model, version) = match path.split_once('/') {
            None => (path, None),
            Some((model, version)) => (model, Some(api.version(version)?)),
        };
        let is_plain =
            |name: &str| !name.is_empty() && name.is_ascii() && !name.contains(api.reserved_characters());
        let fits = parts.method == Method::POST && is_plain(model) && version.is_none_or(is_plain);
        fits.then(|| Target { api, model: model.into(), version: version.unwrap_or_default().into() })
    }
}

impl Api {
    /// The characters that names may not contain.
    fn reserved_characters(self) -> &'static [char] {
        match self {
            Api::OpenInference => &['/', '%'],
            Api::TensorflowServing => &['/', '%', ':'],
        }
    }

    /// Returns the version or label in the path after the model.
    fn version(self, path: &str) -> Option<&str> {
        match (self, path.split_once('/')?) {
            (Api::OpenInference, ("versions", version)) => Some(version),
            (Api::TensorflowServing, ("labels", label)) => Some(label),
            (Api::TensorflowServing, ("versions", number)) => {
                number.bytes().all(|digit| digit.is_ascii_digit()).then_some(number)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn only_what_is_plainly_inference_is_served() {
        let target = |method: &str, path: &str| {
            let parts = Request::builder().method(method).uri(path).body(()).unwrap().into_parts().0;
            Target::of(&parts).map(|target| format!("{} {}", target.model, target.version))
        };
        assert_eq!(target("POST", "/v2/models/m/infer?a=b").as_deref(), Some("m "));
        assert_eq!(
            target("POST", "http://host/v2/models/m/versions/stable/infer").as_deref(),
            Some("m stable")
        );
        assert_eq!(target("POST", "/v1/models/m:predict").as_deref(), Some("m "));
        assert_eq!(target("POST", "/v1/models/m/versions/3:predict").as_deref(), Some("m 3"));
        assert_eq!(target("POST", "/v1/models/m/labels/stable:predict").as_deref(), Some("m stable"));
        assert_eq!(target("GET", "/v2/models/m/infer"), None);
        for path in [
            "/v2/models//infer",
            "/v2/models/infer",
            "/v2/models/m/infer/",
            "/v2/models/m/versions//infer",
            "/v2/models/m/versions/1/2/infer",
            "/v2/models/m/other/1/infer",
            "/v2/models/m%2Fn/infer",
            "/v2/models/m/ready",
            "/v1/models/m/infer",
            "/v1/models/m/versions/stable:predict",
            "/v1/models/m:classify",
            "/v1/models/m/labels/:predict",
            "/v1/models/m:n:predict",
        ] {
            assert_eq!(target("POST", path), None, "{path}");
        }
    }
}
