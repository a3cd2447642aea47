"""Core ML's kinds of models that are no ML Programs: what each is, and what its owner can do instead."""

from __future__ import annotations

from satchel.runtime.errors import FormatError

CONVERT_AGAIN = (
    "only ML Programs are read here; convert the original model again with coremltools, "
    'convert_to="mlprogram" and minimum_deployment_target=iOS15 or later'
)
TAKE_APART = (
    "only ML Programs are read here; take the pipeline apart with coremltools (load_spec, then its models), "
    "save each part that is an ML Program as a package, and run the parts one after the other"
)
USE_ITS_LIBRARY = (
    "only ML Programs are read here; run the model with the library that trained it, such as scikit-learn, XGBoost, "
    "LightGBM or LIBSVM, or run this file on a Mac"
)
WRITE_IT = (
    "only ML Programs are read here; this is a step of data preparation whose few numbers are in the file: read them "
    "with coremltools' load_spec and apply them in numpy, or run this file on a Mac"
)
ON_A_MAC = "only ML Programs are read here; this kind is computed by Apple's own frameworks: run this file on a Mac"

KINDS = {
    "pipelineClassifier": ("a pipeline of models that ends in a classifier", TAKE_APART),
    "pipelineRegressor": ("a pipeline of models that ends in a regressor", TAKE_APART),
    "pipeline": ("a pipeline of models", TAKE_APART),
    "glmRegressor": ("a generalized linear regressor", USE_ITS_LIBRARY),
    "supportVectorRegressor": ("a support vector regressor", USE_ITS_LIBRARY),
    "treeEnsembleRegressor": ("a regressor of decision trees", USE_ITS_LIBRARY),
    "neuralNetworkRegressor": ("a regressor in the old NeuralNetwork format", CONVERT_AGAIN),
    "bayesianProbitRegressor": ("a Bayesian probit regressor", USE_ITS_LIBRARY),
    "glmClassifier": ("a generalized linear classifier", USE_ITS_LIBRARY),
    "supportVectorClassifier": ("a support vector classifier", USE_ITS_LIBRARY),
    "treeEnsembleClassifier": ("a classifier of decision trees", USE_ITS_LIBRARY),
    "neuralNetworkClassifier": ("a classifier in the old NeuralNetwork format", CONVERT_AGAIN),
    "kNearestNeighborsClassifier": ("a k-nearest-neighbors classifier", USE_ITS_LIBRARY),
    "neuralNetwork": ("a network in the old NeuralNetwork format", CONVERT_AGAIN),
    "itemSimilarityRecommender": ("a recommender of similar items", ON_A_MAC),
    "customModel": ("a custom model, whose code is in an app", ON_A_MAC),
    "linkedModel": ("a link to another compiled model", "give the path of the model that it links to"),
    "classConfidenceThresholding": ("thresholds for the confidences of a classifier", WRITE_IT),
    "oneHotEncoder": ("a one-hot encoder", WRITE_IT),
    "imputer": ("an imputer of missing values", WRITE_IT),
    "featureVectorizer": ("a step that joins features into a vector", WRITE_IT),
    "dictVectorizer": ("a step that makes a vector of a dictionary", WRITE_IT),
    "scaler": ("a scaler of features", WRITE_IT),
    "categoricalMapping": ("a mapping of categories", WRITE_IT),
    "normalizer": ("a normalizer of features", WRITE_IT),
    "arrayFeatureExtractor": ("a step that picks elements of an array", WRITE_IT),
    "nonMaximumSuppression": ("a non-maximum suppression of boxes as a model of its own", WRITE_IT),
    "identity": ("a step that gives its input back", "leave it out: its outputs are its inputs"),
    "textClassifier": ("a text classifier of Create ML", ON_A_MAC),
    "wordTagger": ("a word tagger of Create ML", ON_A_MAC),
    "visionFeaturePrint": ("the image features of Apple's Vision framework", ON_A_MAC),
    "soundAnalysisPreprocessing": ("the audio preprocessing of Apple's SoundAnalysis framework", ON_A_MAC),
    "gazetteer": ("a gazetteer of Create ML", ON_A_MAC),
    "wordEmbedding": ("a word embedding of Create ML", ON_A_MAC),
    "audioFeaturePrint": ("the audio features of Apple's SoundAnalysis framework", ON_A_MAC),
    "serializedModel": ("a model serialized for one of Apple's frameworks", ON_A_MAC),
}
EMPTY = "the file is empty, holds no model, or one of a kind that is newer than this version of Satchel"


def refuse(kind: str | None) -> FormatError:
    """The error for a model whose proto has `kind` where an ML Program is wanted; None where it has no known kind."""
    words, hint = KINDS.get(kind or "", ("no model of a known kind", EMPTY))
    got = f"{kind}: {words}" if kind else words
    return FormatError("type of the Core ML model", got=got, wanted="an ML Program (mlProgram)", hint=hint)
