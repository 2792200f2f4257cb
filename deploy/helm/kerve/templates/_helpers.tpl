{{- define "kerve.name" -}}
{{- if contains "kerve" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-kerve" (.Release.Name | trunc 44 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "kerve.selector" -}}
app.kubernetes.io/name: kerve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kerve.labels" -}}
{{ include "kerve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "kerve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Options of kerve serve, by name: true is --NAME, false is --no-NAME, a list repeats the option. */}}
{{- define "kerve.options" -}}
{{- range $name, $value := . }}
{{- if kindIs "bool" $value }}
- --{{ if not $value }}no-{{ end }}{{ $name }}
{{- else }}
{{- range (kindIs "slice" $value | ternary $value (list $value)) }}
{{- /* Numbers from values files are floats, and large ones would be formatted as 6.7e+07. */}}
{{- $whole := and (kindIs "float64" .) (eq (toString (floor .)) (toString .)) }}
- {{ printf "--%s=%v" $name (ternary (int64 .) . $whole) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kerve.arguments" -}}
- --repository=/models
{{- include "kerve.options" .Values.serve }}
{{- if .Values.tls.secret }}
- --grpc-use-ssl{{ if .Values.tls.mutual }}-mutual{{ end }}
- --grpc-server-cert=/etc/kerve/tls/tls.crt
- --grpc-server-key=/etc/kerve/tls/tls.key
{{- if .Values.tls.mutual }}
- --grpc-root-cert=/etc/kerve/tls/ca.crt
{{- end }}
{{- end }}
{{- if .Values.tokens.secret }}
- --tokens=/etc/kerve/tokens/tokens
{{- end }}
{{- end }}

{{/* The security context of every container. */}}
{{- define "kerve.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "kerve.volumes" -}}
- name: tmp
  emptyDir: {}
- name: models
{{- with .Values.models }}
{{- if ne (len (compact (list .claim .image (.fetch | empty | ternary "" "fetch")))) 1 }}
{{- fail "models: expected one of claim, image and fetch, which says where the models are" }}
{{- end }}
{{- if .claim }}
  persistentVolumeClaim: {claimName: {{ .claim }}}
{{- else if .image }}
  image: {reference: {{ .image | quote }}}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}
{{- if .Values.tls.secret }}
- name: tls
  secret: {secretName: {{ .Values.tls.secret }}}
{{- end }}
{{- if .Values.tokens.secret }}
- name: tokens
  secret: {secretName: {{ .Values.tokens.secret }}}
{{- end }}
{{- if .Values.sharedMemory }}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
{{- end }}
{{- end }}

{{- define "kerve.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: models
  mountPath: /models
  {{- if .Values.models.image }}
  readOnly: true
  {{- end }}
{{- if .Values.tls.secret }}
- name: tls
  mountPath: /etc/kerve/tls
  readOnly: true
{{- end }}
{{- if .Values.tokens.secret }}
- name: tokens
  mountPath: /etc/kerve/tokens
  readOnly: true
{{- end }}
{{- if .Values.sharedMemory }}
- name: shared-memory
  mountPath: /dev/shm
{{- end }}
{{- end }}

{{- define "kerve.ports" -}}
- name: grpc
  port: 8001
  targetPort: grpc
  {{- if not .Values.tls.secret }}
  appProtocol: kubernetes.io/h2c
  {{- end }}
- name: http
  port: 8000
  targetPort: http
  appProtocol: http
{{- end }}
