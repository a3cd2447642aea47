// ONNX Runtime's C API (MIT), of Debian's libonnxruntime-dev. The library itself is opened at run time.
#include <onnxruntime/onnxruntime_c_api.h>
