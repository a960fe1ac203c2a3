module lobar/dev/argo

go 1.25
