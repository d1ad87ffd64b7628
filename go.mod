module github.com/berth-registry/berth

go 1.26.0
