import gzip

import numpy as np
import pytest

from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.datasets import load, one_class_split, read_csv, tables
from deepsvdd_jax.datasets.tables import Columns, parse_table


def test_features_names_and_labels(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefflength,label,"wid,th"\r\n1,0,2.5\r\n\r\n-3e2,4, 0 \r\n'.encode())
    features, columns, labels = read_csv(path)
    assert features.dtype == np.float64 and labels.dtype == np.int64
    np.testing.assert_array_equal(features, [[1, 2.5], [-300, 0]])
    assert columns == ("length", "wid,th")
    np.testing.assert_array_equal(labels, [0, 4])


def test_without_a_label_column_there_are_no_labels():
    features, columns, labels = parse_table("a,b\n1,2\n", "")[:3]
    assert columns == ("a", "b") and labels is None and features.shape == (1, 2)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", ["line 1", "header"]),
        ("a,,c\n1,2,3\n", ["line 1", "header", "column 2 has no name"]),
        (",a\n0,1\n", ["column 1 has no name", "index=False"]),
        ("a,b,\n1,2,\n", ["column 3 has no name"]),
        ("a,b\n1,2,\n", ["line 2", "3 values", "2 columns"]),
        ("a;b\n1,5;2,5\n", ["commas", "point"]),
        ("a\n1,5\n", ["line 2", "2 values", "1 columns"]),
        ("id,a\nA-7,1\n", ["line 2", "'id'", "'A-7'", "--id_column"]),
        ("a,label\n1,good\n", ["line 2", "'label'", "'good'", "0 (normal)"]),
        ("1,2\n3,4\n", ["line 1", "numbers"]),
        ("a;b\n1;2\n", ["commas"]),
        ("a,b,a\n1,2,3\n", ["'a'", "twice"]),
        ("label\n1\n", ["no columns beside"]),
        ("a,b\n", ["no rows"]),
        ("a,b\n1,2\n3\n", ["line 3", "1 values", "2 columns"]),
        ("a,b\n1,2\n3,\n", ["line 3", "'b'", "missing"]),
        ("a,b\n1,2\nNA,4\n", ["line 3", "'a'", "'NA'"]),
        ("a,b\n1,nan\n", ["line 2", "'b'", "nan"]),
        ("a,b\n1,-inf\n", ["line 2", "'b'", "inf"]),
        ("a,b\n1,1e309\n", ["line 2", "'b'", "inf"]),
        ("a,b\n1,1_0\n", ["line 2", "'b'", "1_0"]),
        ("a,label\n1,0.5\n", ["line 2", "'label'", "0.5"]),
        ("a,label\n1,-1\n", ["line 2", "'label'", "-1"]),
        ("a,label\n1,1e9\n", ["line 2", "'label'"]),
        ('a,b\n"1\n,2\n', ["line"]),
    ],
)
def test_refusals(text, words, refuses):
    refuses(["t.csv", *words], parse_table, text, "t.csv")


def test_a_binary_file_is_refused(tmp_path, refuses):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    refuses(["a.csv", "UTF-8"], read_csv, path)


def test_what_a_small_file_blows_up_to_is_refused(tmp_path, monkeypatch, refuses):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + bytes(20 << 20)))
    assert path.stat().st_size < 100_000
    refuses(["a.csv", "in a line"], read_csv, path)
    monkeypatch.setattr(tables, "MAX_CSV_CHARACTERS", 1000)
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 240))
    assert read_csv(path)[0].shape == (240, 2)
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 250))
    refuses(["a.csv", "more than 1000 characters"], read_csv, path)


def test_a_single_labelled_file_is_split_every_fifth(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,label\n" + "".join(f"{i},{i % 2}\n" for i in range(10)))
    dataset = load(DataConfig("csv", str(path)))
    np.testing.assert_array_equal(dataset.x_test[:, 0], [8, 9])
    np.testing.assert_array_equal(dataset.y_test, [0, 1])
    assert dataset.x_train.shape == (8, 1) and dataset.x_train.dtype == np.float64


def test_a_single_unlabelled_file_is_all_normal(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n3,4\n")
    dataset = load(DataConfig("csv", str(path)))
    assert dataset.x_train.shape == (2, 2) and dataset.x_test.shape == (0, 2)
    np.testing.assert_array_equal(dataset.y_train, [0, 0])


def test_a_folder_of_two_files(tmp_path):
    (tmp_path / "train.csv").write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "test.csv").write_text("x,label,y\n5,0,6\n7,3,8\n")
    dataset = load(DataConfig("csv", str(tmp_path)))
    np.testing.assert_array_equal(dataset.x_test, [[5, 6], [7, 8]])
    np.testing.assert_array_equal(one_class_split(dataset, 0).test_labels, [0, 1])


@pytest.mark.parametrize(
    "test, words",
    [
        ("x,y\n1,2\n", ["test.csv", "label"]),
        ("x,label\n1,0\n", ["test.csv", "'y' is missing", "x, label"]),
        ("x,y,z,label\n1,2,3,0\n", ["test.csv", "'z' is not in train.csv"]),
    ],
)
def test_a_test_file_that_does_not_fit_is_refused(tmp_path, test, words, refuses):
    (tmp_path / "train.csv").write_text("x,y\n1,2\n")
    (tmp_path / "test.csv").write_text(test)
    refuses(words, load, DataConfig("csv", str(tmp_path)))


def test_missing_files(tmp_path, refuses):
    refuses(["--data_dir"], load, DataConfig("csv"))
    refuses(["train.csv", "not found"], load, DataConfig("csv", str(tmp_path)))
    refuses(["no.csv", "not found"], load, DataConfig("csv", str(tmp_path / "no.csv")))


def test_columns_have_the_roles_that_they_are_given() -> None:
    text = 'part,Label,b,note,a\nA-1,0,2,"x, y",1\n,3,4,,3\n'
    columns = Columns(label="Label", ignored=("note",), identifier="part")
    table = parse_table(text, "", columns)
    assert table.names == ("b", "a") and table.identifiers == ("A-1", "") and not table.unused
    np.testing.assert_array_equal(table.features, [[2, 1], [4, 3]])
    np.testing.assert_array_equal(table.labels, [0, 3])


def test_features_are_found_by_their_names() -> None:
    columns = Columns(features=("a", "b"))
    table = parse_table("c,b,label,a\nx,2,0,1\n", "", columns)
    np.testing.assert_array_equal(table.features, [[1, 2]])
    assert table.unused == ("c",)


def test_an_ignored_column_of_labels_is_none() -> None:
    table = parse_table("a,label\n1,good\n", "", Columns(ignored=("label",)))
    assert table.labels is None and table.names == ("a",)


def test_columns_that_are_not_there_are_named(refuses) -> None:
    for columns in (
        Columns(label="Lable", required=("Lable",)),
        Columns(ignored=("Lable",), required=("Lable",)),
        Columns(features=("a", "Lable")),
    ):
        refuses(
            ["t.csv", "'Lable' is missing", "a, b"], parse_table, "a,b\n1,2\n", "t.csv", columns
        )


def test_roles_of_a_configuration(tmp_path, refuses) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"N{i},{i % 2},{i},{-i}\n" for i in range(10))
    path.write_text("part,Class,x,y\n" + rows)
    config = DataConfig("csv", str(path), label_column="Class", id_column="part")
    dataset = load(config)
    assert dataset.feature_names == ("x", "y")
    np.testing.assert_array_equal(dataset.y_test, [0, 1])
    assert dataset.test_names == ("N8", "N9") and dataset.train_names[:2] == ("N0", "N1")
    dataset = load(DataConfig("csv", str(path), ignore_columns=("part", "Class", "y")))
    assert dataset.x_train.shape == (10, 1) and not dataset.train_names
    refuses(["'label' is missing"], load, DataConfig("csv", str(path), label_column="label"))
    refuses(["'A'"], load, DataConfig("csv", str(path), ignore_columns=("A",)))


@pytest.mark.parametrize(
    "name", ["Label", "class", "target", "ID", "timestamp", "Index", "y", "is_anomaly", "Date"]
)
def test_features_with_the_names_of_something_else_are_told(tmp_path, caplog, name) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"x,{name}\n1,2\n3,4\n")
    load(DataConfig("csv", str(path)))
    assert f"a.csv: {name} taken as a feature" in caplog.text and "--id_column" in caplog.text
    caplog.clear()
    load(DataConfig("csv", str(path), ignore_columns=(name,)))
    assert not caplog.text


def test_the_columns_of_the_test_file_come_in_any_order(tmp_path) -> None:
    (tmp_path / "train.csv").write_text("id,x,y\na,1,2\nb,3,4\n")
    (tmp_path / "test.csv").write_text("y,kind,x,id\n6,0,5,c\n8,2,7,d\n")
    config = DataConfig("csv", str(tmp_path), label_column="kind", id_column="id")
    dataset = load(config)
    np.testing.assert_array_equal(dataset.x_test, [[5, 6], [7, 8]])
    np.testing.assert_array_equal(dataset.y_test, [0, 1])
    assert dataset.train_names == ("a", "b") and dataset.test_names == ("c", "d")
