# The project on a vendor image of TensorFlow 1.15 for Ascend (Python 3.7, the toolkit, the adapter).
#   docker build -t densenet-keras:ascend --build-arg BASE_IMAGE=<image:tag from Ascend Hub> .
# Choose the tag of your driver's CANN release. TensorFlow, NumPy and the adapter belong together in the
# base image and are never installed here: for aarch64 PyPI has no TensorFlow 1.15 at all.
ARG BASE_IMAGE=ascendhub.huawei.com/public-ascendhub/ascend-tensorflow:21.0.2-ubuntu18.04
FROM ${BASE_IMAGE}

# The only thing that such an image may lack; --no-deps keeps pip's hands off everything else.
RUN python3.7 -c "import tqdm" 2>/dev/null || python3.7 -m pip install --no-cache-dir --no-deps tqdm

COPY densenet_keras /opt/densenet_keras/densenet_keras
COPY scripts /opt/densenet_keras/scripts
COPY train_keras.py evaluate.py finetune.py /opt/densenet_keras/

# Any user may run it: scripts/docker_start.sh passes the caller's, a pod its securityContext's.
RUN python3.7 -m compileall -q /opt/densenet_keras/densenet_keras && chmod -R a+rX /opt/densenet_keras
ENTRYPOINT ["/opt/densenet_keras/scripts/container_entry.sh"]
CMD ["/bin/bash"]
